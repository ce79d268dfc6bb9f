package explain

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/nftproxy/nftproxy/proxier/desired"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// A frontend with policy Local has fewer slots than the node has endpoints: the rest is left out, and said so.
func TestSlotLimit(t *testing.T) {
	const over = 5
	name := service.Name{Namespace: "default", Name: "web"}
	external := netip.MustParseAddr("198.51.100.1")
	svc := &service.Service{Name: name, ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.10")},
		ExternalIPs: []netip.Addr{external}, ExternalLocal: true,
		Ports: []service.Port{{Protocol: service.TCP, Port: 80}}}
	addr := netip.MustParseAddr("10.244.0.0")
	for range nftables.MaxLocalSlots + over {
		addr = addr.Next()
		svc.Ports[0].Endpoints = append(svc.Ports[0].Endpoints, service.Endpoint{
			Backend: netip.AddrPortFrom(addr, 8080), Node: "node-a", Ready: true, Serving: true})
	}
	w := &Wanted{Environment: desired.Environment{Node: service.Node{Name: "node-a"},
		Config: rules.Config{MasqueradeMark: 1, Families: service.Families()}}}
	w.Ruleset = rules.NewRuleset(w.Environment.Config)
	w.Ruleset.Put(rules.Compile(svc, w.Environment.Node, w.Ruleset.Slots, rules.MaxShare))
	w.Services = []desired.Inspection{{Name: name, Service: svc}}
	report, err := Explain(w, Question{Target: external.String() + ":80", From: "outside"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Endpoints) != nftables.MaxLocalSlots || len(report.LeftOut) != over {
		t.Errorf("%d endpoints, %d left out, want %d, %d",
			len(report.Endpoints), len(report.LeftOut), nftables.MaxLocalSlots, over)
	}
	for _, e := range report.LeftOut {
		if !strings.Contains(e.Reason, fmt.Sprint("at most ", nftables.MaxLocalSlots)) {
			t.Errorf("%s is left out because %q", e.Address, e.Reason)
		}
	}
}

func TestParseTarget(t *testing.T) {
	web := service.Name{Namespace: "default", Name: "web"}
	for text, want := range map[string]target{
		"default/web":        {name: web},
		"default/web:http":   {name: web, portName: "http"},
		"default/web:53/udp": {name: web, portName: "53", protocol: service.UDP},
		"default/web/sctp":   {name: web, protocol: service.SCTP},
		"default/tcp":        {name: service.Name{Namespace: "default", Name: "tcp"}},
		"10.96.0.10:80":      {addr: netip.MustParseAddr("10.96.0.10"), port: 80, protocol: service.TCP},
		"10.96.0.10:53/UDP":  {addr: netip.MustParseAddr("10.96.0.10"), port: 53, protocol: service.UDP},
		"[fd00::1]:80":       {addr: netip.MustParseAddr("fd00::1"), port: 80, protocol: service.TCP},
		"30080":              {port: 30080, protocol: service.TCP},
		"30080/udp":          {port: 30080, protocol: service.UDP},
	} {
		if got, err := parseTarget(text); err != nil || got != want {
			t.Errorf("%s: %+v, error %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "web", "/web", "default/", "a/b/c", "10.96.0.10", "10.96.0.10:0", "0",
		"70000", "fd00::1", "10.96.0.10:80/icmp"} {
		if got, err := parseTarget(text); err == nil {
			t.Errorf("%q is %+v, want an error", text, got)
		}
	}
}
