package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	vnetlink "github.com/vishvananda/netlink"

	"github.com/nftproxy/nftproxy/internal/faults"
	"github.com/nftproxy/nftproxy/internal/lab"
)

// seed is how a test makes a fault on the node of a laboratory, and what it does to connections.
type seed struct {
	make  func(*faulty) // nil: the manifests have it
	shows lab.Row       // what a client sees
	works []lab.Row     // what works nevertheless, as the page says, and what fails besides
	also  func(*faulty) // more that a client sees, or that the remedy helps
}

// seeds returns the fault of each section of docs/troubleshooting.md.
func seeds() map[string]seed {
	pod, outside := "pod-b", "client"
	web := lab.Row{From: pod, To: tcpTo("10.96.0.10:80")}
	lost, masked := web, web
	lost.Dropped = true
	masked.By, masked.Source = []string{"pod-c"}, "node"
	by := func(from, to, who string) lab.Row { return lab.Row{From: from, To: tcpTo(to), By: []string{who}} }
	fromNode := by("node", "10.96.0.10:80", "pod-c")
	return map[string]seed{
		"no-endpoints": {shows: lab.Row{From: pod, To: tcpTo("10.96.0.20:80"), Refused: true}},
		"wrong-targetport": {shows: lab.Row{From: pod, To: tcpTo("10.96.0.21:80"), Refused: true},
			works: []lab.Row{{From: pod, To: tcpTo("10.244.2.11:8081"), Refused: true}}},
		"named-port-missing": {shows: lab.Row{From: pod, To: tcpTo("10.96.0.22:80"), Refused: true}},
		"policy-local-without-a-local-pod": {
			shows: lab.Row{From: outside, To: tcpTo("203.0.113.23:80"), Dropped: true},
			works: []lab.Row{by(pod, "203.0.113.23:80", "pod-c")}},
		"source-range": {shows: lab.Row{From: outside, To: tcpTo("203.0.113.24:80"), Dropped: true},
			works: []lab.Row{by("client-2", "203.0.113.24:80", "pod-c")}},
		"topology-hints": {shows: lab.Row{From: pod, To: tcpTo("10.96.0.25:80"), By: []string{"pod-a"}}},
		"two-services-with-one-address": {
			shows: lab.Row{From: outside, To: tcpTo("203.0.113.26:80"), By: []string{"pod-a"}}},
		"external-ip-not-allowed": {
			shows: lab.Row{From: outside, To: tcpTo("198.51.100.28:80"), Dropped: true}},
		"dns": {shows: lab.Row{From: pod, To: web.To, By: []string{"pod-c"}}, also: resolvesNothing},
		"hairpin": {make: bridgesCallRules, also: hairpinHelps,
			shows: lab.Row{From: "pod-a", To: tcpTo("10.96.0.29:80"), Dropped: true},
			works: []lab.Row{by(pod, "10.96.0.29:80", "pod-a")}},
		"pods-on-one-bridge": {make: oneSubnet, also: callingRulesHelps,
			shows: lab.Row{From: pod, To: tcpTo("10.96.0.29:80"), Dropped: true},
			works: []lab.Row{by(pod, "10.96.0.10:80", "pod-c")}},
		"ip-forwarding-off": {make: forwardsNothing, shows: lost,
			works: []lab.Row{fromNode}},
		"connection-tracking-full": {make: fillsConntrack, shows: lost},
		"a-firewall-drops":         {make: firewall, shows: lost, works: []lab.Row{fromNode}},
		"a-networkpolicy-drops": {make: networkPolicy, shows: lost,
			works: []lab.Row{by("pod-a", "10.96.0.10:80", "pod-c")}},
		"another-program-masquerades":   {make: masquerades, shows: masked},
		"another-program-uses-the-mark": {make: usesTheMark, shows: masked},
		"the-kernel-lacks-nftables":     {},
	}
}

// sysctl sets a sysctl of the node.
func (f *faulty) sysctl(name, value string) {
	f.Helper()
	file := filepath.Join("/proc/sys/net", name)
	before, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, []byte(value), 0)
	}
	if err != nil {
		f.Fatal(err)
	}
	f.undo = append(f.undo, func() {
		if err := os.WriteFile(file, before, 0); err != nil {
			f.Fatal(err)
		}
	})
}

func forwardsNothing(f *faulty) { f.sysctl("ipv4/ip_forward", "0") }

// bridgesCallRules is what Kubernetes asks of nodes whose pods are on a bridge. The ports of the laboratory's
// bridge are not in hairpin mode.
func bridgesCallRules(f *faulty) { f.sysctl("bridge/bridge-nf-call-iptables", "1") }

// oneSubnet makes the pods of the node neighbours, as the CNI plugin bridge does: they answer each other
// without the node. The bridge of the laboratory calls no rules of IP.
func oneSubnet(f *faulty) {
	subnet := &net.IPNet{IP: net.IPv4(10, 244, 1, 0).To4(), Mask: net.CIDRMask(24, 32)}
	onBridge := &vnetlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 244, 1, 254).To4(), Mask: subnet.Mask}}
	bridge, err := vnetlink.LinkByName("cni0")
	if err == nil {
		err = vnetlink.AddrAdd(bridge, onBridge)
	}
	if err != nil {
		f.Fatal(err)
	}
	f.undo = append(f.undo, func() { f.must(vnetlink.AddrDel(bridge, onBridge)) })
	for _, pod := range []string{"pod-a", "pod-b"} {
		route := func(change func(*vnetlink.Route) error) {
			f.must(f.lab.Namespace(pod).Do(func() error {
				link, err := vnetlink.LinkByName("eth0")
				if err != nil {
					return err
				}
				return change(&vnetlink.Route{LinkIndex: link.Attrs().Index, Dst: subnet,
					Scope: vnetlink.SCOPE_LINK})
			}))
		}
		route(vnetlink.RouteAdd)
		f.undo = append(f.undo, func() { route(vnetlink.RouteDel) })
	}
}

// callingRulesHelps is what the page says to do.
func callingRulesHelps(f *faulty) {
	bridgesCallRules(f)
	works := lab.Row{From: "pod-b", To: tcpTo("10.96.0.29:80"), By: []string{"pod-a"}, Source: "unchanged"}
	if _, err := f.lab.Check(f.Context(), works); err != nil {
		f.Error(err)
	}
}

func (f *faulty) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// hairpinHelps is what the page says to do.
func hairpinHelps(f *faulty) {
	port, err := vnetlink.LinkByName("veth-pod-a")
	if err == nil {
		err = vnetlink.LinkSetHairpin(port, true)
	}
	if err != nil {
		f.Fatal(err)
	}
	works := lab.Row{From: "pod-a", To: tcpTo("10.96.0.29:80"), By: []string{"pod-a"}}
	if _, err := f.lab.Check(f.Context(), works); err != nil {
		f.Error(err)
	}
	f.holds(faults.Fault{Name: "hairpin on", Args: []string{"explain", "default/self", "--from=10.244.1.11"},
		Lines: []string{"...", "verdict endpoint: 10.244.1.11:8080"}})
}

// program adds a table of another program.
func (f *faulty) program(table, content string) {
	f.Helper()
	if _, err := f.lab.Node().Nft(fmt.Sprintf("table %s {\n%s\n}\n", table, content)); err != nil {
		f.Fatal(err)
	}
	f.undo = append(f.undo, func() {
		if _, err := f.lab.Node().Nft("delete table " + table); err != nil {
			f.Fatal(err)
		}
	})
}

func firewall(f *faulty) {
	f.program("inet firewall", `chain forward { type filter hook forward priority filter; policy drop;
		ct state established,related accept; tcp dport 443 accept;
		}`)
}

func networkPolicy(f *faulty) {
	f.program("inet policies", `chain forward { type filter hook forward priority filter; policy accept;
		ct state established,related accept; ip saddr 10.244.1.12 ip daddr 10.244.2.11 jump default-deny;
		}
		chain default-deny { drop; }`)
}

func masquerades(f *faulty) {
	f.program("ip vpn", `chain postrouting { type nat hook postrouting priority srcnat - 10;
		ip saddr 10.244.0.0/16 masquerade;
		}`)
}

func usesTheMark(f *faulty) {
	f.program("inet vpn", `chain prerouting { type filter hook prerouting priority mangle;
		ip saddr 10.244.0.0/16 meta mark set meta mark | 0x4000;
		}`)
}

// resolvesNothing asks the cluster's DNS for the address of the Service.
func resolvesNothing(f *faulty) {
	dns := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (conn net.Conn, err error) {
		err = f.lab.Namespace("pod-b").Do(func() (err error) {
			conn, err = (&net.Dialer{}).DialContext(ctx, "udp", "10.96.0.53:53")
			return err
		})
		return conn, err
	}}
	addrs, err := dns.LookupHost(f.Context(), "web.default.svc.cluster.local.")
	if err == nil {
		f.Errorf("DNS answers %v, want no answer", addrs)
	}
}
