package explain

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/nftproxy/nftproxy/proxier/conntrack"
	"github.com/nftproxy/nftproxy/proxier/desired"
	"github.com/nftproxy/nftproxy/proxier/host"
	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// TestHost judges facts about a node: what they do to a connection from a pod or the node to a pod, to the
// client itself, or to an endpoint in the host network.
func TestHost(t *testing.T) {
	const (
		pod, other, nodeAddr = "10.244.1.11", "10.244.2.11", "192.0.2.1"
		fine                 = "endpoint: "
	)
	off := map[service.Family][]string{service.IPv4: {"net.ipv4.ip_forward"}}
	off6 := map[service.Family][]string{service.IPv6: {"net.ipv6.conf.all.forwarding"}}
	full, busy := conntrack.Usage{Flows: 9, Most: 9}, conntrack.Usage{Flows: 8, Most: 10}
	lost := conntrack.Losses{Dropped: 3, Insert: 2}
	mark := func(family string, sets bool) []kernel.MarkRule {
		return []kernel.MarkRule{{Family: family, Table: "vpn", Chain: "c", Sets: sets}}
	}
	port := func(hairpin bool) map[netip.Addr]host.BridgePort {
		return map[netip.Addr]host.BridgePort{
			netip.MustParseAddr(pod): {Name: "veth0", Bridge: "cni0", Hairpin: hairpin}}
	}
	near := map[netip.Addr]host.BridgePort{netip.MustParseAddr(pod): {Name: "veth0", Bridge: "cni0",
		Subnets: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}}}
	calls := map[service.Family]bool{service.IPv4: true}
	forward := func(family, name string, drop bool) []kernel.Table {
		return []kernel.Table{{Family: family, Name: name, Chains: []kernel.TableChain{
			{Name: "forward", Hook: &nftables.Hook{Name: "forward"}, Drop: drop}, {Name: "jumped"}}}}
	}
	for name, tt := range map[string]struct {
		host           Host
		from, endpoint string
		verdict        string // the end of the line; "": nothing but the endpoint
		line           string // a part of another line
		code           int
	}{
		"forwarding off": {Host{NotForwarding: off}, pod, other,
			"net.ipv4.ip_forward is 0", "forwarding  off", 1},
		"forwarding off, from the node": {Host{NotForwarding: off}, nodeAddr, other, "", "", 0},
		"forwarding off, to the node":   {Host{NotForwarding: off}, pod, nodeAddr, "", "", 0},
		"IPv6 forwarding off":           {Host{NotForwarding: off6}, pod, other, "", "", 0},
		"conntrack full": {Host{Flows: full}, nodeAddr, other,
			"connection tracking is full", "9 of at most 9 flows", 1},
		"conntrack not full": {Host{Flows: busy}, pod, other, "", "", 0},
		"conntrack nearly full": {Host{Flows: conntrack.Usage{Flows: 96, Most: 100}}, pod, other,
			"connection tracking is nearly full", "96 of at most 100 flows", 0},
		"conntrack has dropped": {Host{Flows: busy, Losses: lost}, pod, other,
			"", "has dropped: 3 packets of new connections since the boot, 2 of them", 0},
		"conntrack not in use": {Host{}, pod, other, "", "", 0},
		"hairpin off": {Host{Ports: port(false), BridgesCallRules: calls}, pod, pod,
			"that it came from", "port veth0 of bridge cni0", 1},
		"hairpin on": {Host{Ports: port(true), BridgesCallRules: calls}, pod, pod, "", "", 0},
		"one subnet, no rules": {Host{Ports: near}, pod, "10.244.1.12",
			"but the answer does not pass this node", "bridge    calls no rules", 1},
		"one subnet, rules":           {Host{Ports: near, BridgesCallRules: calls}, pod, "10.244.1.12", "", "", 0},
		"another subnet":              {Host{Ports: near}, pod, other, "", "", 0},
		"one subnet, to itself":       {Host{Ports: near}, pod, pod, "", "", 0},
		"hairpin off, routed":         {Host{Ports: port(false)}, pod, pod, "", "", 0},
		"hairpin off, to another pod": {Host{Ports: port(false), BridgesCallRules: calls}, pod, other, "", "", 0},
		"policy drop": {Host{Tables: forward("inet", "fw", true)}, pod, other,
			"chain inet fw forward drops what no rule in it accepts", "inet fw forward (forward, policy drop)", 0},
		"policy drop, from the node": {Host{Tables: forward("inet", "fw", true)}, nodeAddr, other, "", "", 0},
		"policy drop of IPv6":        {Host{Tables: forward("ip6", "fw", true)}, pod, other, "", "", 0},
		"policy accept": {Host{Tables: forward("ip", "fw", false)}, pod, other,
			"", "others    not evaluated", 0},
		"our own table": {Host{Tables: forward("ip", "nftproxy", true)}, pod, other, "", "", 0},
		"mark set": {Host{Marks: mark("ip", true)}, pod, other,
			"may masquerade it by nftproxy's mark", "sets bit 0x00004000", 0},
		"mark set, masqueraded anyway": {Host{Marks: mark("ip", true)}, nodeAddr, other, "", "", 0},
		"mark cleared": {Host{Marks: mark("inet", false)}, nodeAddr, other,
			"may clear nftproxy's mark", "clears bit 0x00004000", 0},
		"mark cleared, not masqueraded": {Host{Marks: mark("inet", false)}, pod, other, "", "", 0},
		"mark cleared in IPv6":          {Host{Marks: mark("ip6", false)}, nodeAddr, other, "", "", 0},
		"others not read": {Host{Unread: errors.New("no permission")}, pod, other,
			"", "others    not read: no permission", 0},
		"two obstacles, the first one first": {Host{NotForwarding: off, Flows: full}, pod, other,
			"is 0; and the table of connection tracking is full", "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			report := explainOn(t, &tt.host, tt.from, tt.endpoint)
			var b strings.Builder
			if err := report.WriteText(&b); err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSpace(b.String()), "\n")
			last := lines[len(lines)-1]
			if !strings.Contains(last, fine+tt.endpoint+":8080") || !strings.HasSuffix(last, tt.verdict) ||
				tt.verdict == "" && strings.Contains(last, "but") {
				t.Errorf("%q, want an end with %q", last, tt.verdict)
			}
			if !strings.Contains(b.String(), tt.line) {
				t.Errorf("no line %q in\n%s", tt.line, b.String())
			}
			if report.ExitCode() != tt.code {
				t.Errorf("exit code %d, want %d", report.ExitCode(), tt.code)
			}
		})
	}
}

// explainOn asks about a Service with one endpoint, on a node with these facts.
func explainOn(t *testing.T, h *Host, from, endpoint string) *Report {
	t.Helper()
	name := service.Name{Namespace: "default", Name: "web"}
	svc := &service.Service{Name: name, ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.10")},
		Ports: []service.Port{{Protocol: service.TCP, Port: 80, Endpoints: []service.Endpoint{{
			Backend: netip.AddrPortFrom(netip.MustParseAddr(endpoint), 8080), Node: "node-a", Ready: true,
			Serving: true}}}}}
	w := &Wanted{Host: h, HostAddrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		Environment: desired.Environment{Node: service.Node{Name: "node-a"}, Config: rules.Config{
			MasqueradeMark: 0x4000, Families: service.Families(),
			PodTraffic: rules.PodTraffic{CIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}}}}}
	w.Ruleset = rules.NewRuleset(w.Environment.Config)
	w.Ruleset.Put(rules.Compile(svc, w.Environment.Node, w.Ruleset.Slots, rules.MaxShare))
	w.Services = []desired.Inspection{{Name: name, Service: svc}}
	report, err := Explain(w, Question{Target: "default/web", From: from}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return report
}
