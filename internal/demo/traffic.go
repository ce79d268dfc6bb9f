package main

import (
	"net/netip"
	"strings"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// asGiven is what is to come of requests while the manifests are as they are in testdata/demo.
func asGiven() []group {
	return []group{
		{"ClusterIP (web): every pod of the Service in turn; it sees its client as it is.", []lab.Row{
			row("pod-b", "tcp 10.96.0.80:80", "unchanged", "pod-a", "pod-c"),
			row("pod-b", "tcp [fd00:10:96::80]:80", "unchanged", "pod-a", "pod-c"),
		}},
		{"ClusterIP, DNS (kube-dns): the same port on UDP and TCP.", []lab.Row{
			row("pod-b", "udp 10.96.0.10:53", "unchanged", "pod-a", "pod-c"),
			row("pod-b", "tcp 10.96.0.10:53", "unchanged", "pod-a", "pod-c"),
			row("pod-b", "udp [fd00:10:96::a]:53", "unchanged", "pod-a", "pod-c"),
		}},
		{"ClusterIP, asked by the node itself: pods see an address of the node, to which they know the way.", []lab.Row{
			row("node", "tcp 10.96.0.80:80", "node", "pod-a", "pod-c"),
			row("node", "tcp [fd00:10:96::80]:80", "node", "pod-a", "pod-c"),
		}},
		{"ClusterIP, a pod that reaches itself (restricted has only pod-a): it sees the node.", []lab.Row{
			row("pod-a", "tcp 10.96.0.83:80", "node", "pod-a"),
		}},
		{"nodePort (web), from outside: every pod; it sees the node, so that answers come back this way.", []lab.Row{
			row("client", "tcp 192.0.2.1:30080", "node", "pod-a", "pod-c"),
			row("client", "tcp [2001:db8::1]:30080", "node", "pod-a", "pod-c"),
		}},
		{"LoadBalancer IP (web): the same.", []lab.Row{
			row("client", "tcp 203.0.113.80:80", "node", "pod-a", "pod-c"),
			row("client", "tcp [2001:db8:1::80]:80", "node", "pod-a", "pod-c"),
		}},
		{"External IP (web): the same.", []lab.Row{
			row("client", "tcp 198.51.100.80:80", "node", "pod-a", "pod-c"),
		}},
		{"externalTrafficPolicy Local (local: LoadBalancer IP, nodePort): only pod-b, which is on this node;\n" +
			"it sees the client as it is.", []lab.Row{
			row("client", "tcp 203.0.113.81:80", "unchanged", "pod-b"),
			row("client", "tcp 192.0.2.1:30081", "unchanged", "pod-b"),
		}},
		{"The same LoadBalancer IP, asked by a pod and by the node: every pod.", []lab.Row{
			row("pod-a", "tcp 203.0.113.81:80", "unchanged", "pod-b", "pod-d"),
			row("node", "tcp 203.0.113.81:80", "node", "pod-b", "pod-d"),
		}},
		{"loadBalancerSourceRanges (restricted): admits client, but not client-2, whose packets are dropped.", []lab.Row{
			row("client", "tcp 203.0.113.83:80", "node", "pod-a"),
			dropped("client-2", "tcp 203.0.113.83:80"),
		}},
		{"A Service without endpoints (empty): refused at once.", []lab.Row{
			refused("pod-b", "tcp 10.96.0.84:80"),
			refused("node", "tcp 10.96.0.84:80"),
		}},
		{"A port, and a protocol, that the ClusterIP of web does not have: refused at once.", []lab.Row{
			refused("pod-b", "tcp 10.96.0.80:81"),
			refused("pod-b", "udp 10.96.0.80:80"),
		}},
		{"A ClusterIP that no Service has: dropped.", []lab.Row{
			dropped("pod-b", "tcp 10.96.200.200:80"),
		}},
	}
}

// steady is the requests that go on while endpoints change: none may fail.
func steady() []lab.Row {
	return []lab.Row{
		row("pod-b", "tcp 10.96.0.80:80", ""),
		row("pod-b", "udp 10.96.0.10:53", ""),
		row("client", "tcp 192.0.2.1:30080", ""),
	}
}

// changed is what is to come of requests when web and kube-dns have pod-d in place of pod-c.
func changed() []group {
	return []group{
		{"web: pod-d now, and no longer pod-c, at every address.", []lab.Row{
			row("pod-b", "tcp 10.96.0.80:80", "unchanged", "pod-a", "pod-d"),
			row("pod-b", "tcp [fd00:10:96::80]:80", "unchanged", "pod-a", "pod-d"),
			row("node", "tcp 10.96.0.80:80", "node", "pod-a", "pod-d"),
			row("client", "tcp 192.0.2.1:30080", "node", "pod-a", "pod-d"),
			row("client", "tcp [2001:db8:1::80]:80", "node", "pod-a", "pod-d"),
			row("client", "tcp 198.51.100.80:80", "node", "pod-a", "pod-d"),
		}},
		{"kube-dns: likewise.", []lab.Row{
			row("pod-b", "udp 10.96.0.10:53", "unchanged", "pod-a", "pod-d"),
			row("pod-b", "tcp [fd00:10:96::a]:53", "unchanged", "pod-a", "pod-d"),
		}},
	}
}

// row is requests that pods answer, all of them and nobody else; source is as in lab.Row.
func row(from, to, source string, pods ...string) lab.Row {
	return lab.Row{From: from, To: target(to), By: pods, Source: source}
}

func refused(from, to string) lab.Row { return lab.Row{From: from, To: target(to), Refused: true} }

func dropped(from, to string) lab.Row { return lab.Row{From: from, To: target(to), Dropped: true} }

// target is what lab.Target's String writes as text.
func target(text string) lab.Target {
	proto, addr, _ := strings.Cut(text, " ")
	return lab.Target{Proto: proto, Addr: netip.MustParseAddrPort(addr)}
}
