package main

import (
	"net/netip"
	"strings"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// asGiven returns the requests and expected results for the unchanged manifests of testdata/demo.
func asGiven() []group {
	return []group{
		{"ClusterIP (web): every pod of the Service answers; it sees the address of its client.", []lab.Row{
			row("pod-b", "tcp 10.96.0.80:80", "unchanged", "pod-a", "pod-c"),
			row("pod-b", "tcp [fd00:10:96::80]:80", "unchanged", "pod-a", "pod-c"),
		}},
		{"ClusterIP, DNS (kube-dns): the same port on UDP and TCP.", []lab.Row{
			row("pod-b", "udp 10.96.0.10:53", "unchanged", "pod-a", "pod-c"),
			row("pod-b", "tcp 10.96.0.10:53", "unchanged", "pod-a", "pod-c"),
			row("pod-b", "udp [fd00:10:96::a]:53", "unchanged", "pod-a", "pod-c"),
		}},
		{"ClusterIP (web), from the node itself: the pods see an address of the node.", []lab.Row{
			row("node", "tcp 10.96.0.80:80", "node", "pod-a", "pod-c"),
			row("node", "tcp [fd00:10:96::80]:80", "node", "pod-a", "pod-c"),
		}},
		{"ClusterIP, from a pod to itself (restricted has only pod-a): it sees the node.", []lab.Row{
			row("pod-a", "tcp 10.96.0.83:80", "node", "pod-a"),
		}},
		{"nodePort (web), from outside: every pod answers; it sees the node, which gets its reply.", []lab.Row{
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
		{"externalTrafficPolicy Local (local: LoadBalancer IP, nodePort): only pod-b answers, which is on\n" +
			"this node; it sees the address of the client.", []lab.Row{
			row("client", "tcp 203.0.113.81:80", "unchanged", "pod-b"),
			row("client", "tcp 192.0.2.1:30081", "unchanged", "pod-b"),
		}},
		{"The same LoadBalancer IP, from a pod and from the node: every pod answers.", []lab.Row{
			row("pod-a", "tcp 203.0.113.81:80", "unchanged", "pod-b", "pod-d"),
			row("node", "tcp 203.0.113.81:80", "node", "pod-b", "pod-d"),
		}},
		{"loadBalancerSourceRanges (restricted): client is allowed, packets of client-2 are dropped.", []lab.Row{
			row("client", "tcp 203.0.113.83:80", "node", "pod-a"),
			dropped("client-2", "tcp 203.0.113.83:80"),
		}},
		{"A Service without endpoints (empty): refused at once.", []lab.Row{
			refused("pod-b", "tcp 10.96.0.84:80"),
			refused("node", "tcp 10.96.0.84:80"),
		}},
		{"The ClusterIP of web, another port or protocol: refused at once.", []lab.Row{
			refused("pod-b", "tcp 10.96.0.80:81"),
			refused("pod-b", "udp 10.96.0.80:80"),
		}},
		{"An address of the ClusterIP range that no Service has: dropped.", []lab.Row{
			dropped("pod-b", "tcp 10.96.200.200:80"),
		}},
	}
}

// steady returns the requests that run while endpoints change. None of them may fail.
func steady() []lab.Row {
	return []lab.Row{
		row("pod-b", "tcp 10.96.0.80:80", ""),
		row("pod-b", "udp 10.96.0.10:53", ""),
		row("client", "tcp 192.0.2.1:30080", ""),
	}
}

// changed returns the requests and expected results after pod-d has replaced pod-c in web and kube-dns.
func changed() []group {
	return []group{
		{"web: pod-d in place of pod-c, at every address.", []lab.Row{
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

// row returns requests that all of pods answer, and no other pod. For source see lab.Row.
func row(from, to, source string, pods ...string) lab.Row {
	return lab.Row{From: from, To: target(to), By: pods, Source: source}
}

func refused(from, to string) lab.Row { return lab.Row{From: from, To: target(to), Refused: true} }

func dropped(from, to string) lab.Row { return lab.Row{From: from, To: target(to), Dropped: true} }

// target parses the text that lab.Target.String returns.
func target(text string) lab.Target {
	proto, addr, _ := strings.Cut(text, " ")
	return lab.Target{Proto: proto, Addr: netip.MustParseAddrPort(addr)}
}
