package rules_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// addrs reads addresses separated by spaces.
func addrs(texts string) []netip.Addr {
	var out []netip.Addr
	for _, text := range strings.Fields(texts) {
		out = append(out, netip.MustParseAddr(text))
	}
	return out
}

// prefixes reads prefixes separated by spaces.
func prefixes(texts string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range strings.Fields(texts) {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

// backendList reads backends separated by spaces; - is an invalid one.
func backendList(texts string) []service.Backend {
	var out []service.Backend
	for _, text := range strings.Fields(texts) {
		if text == "-" {
			out = append(out, service.Backend{})
			continue
		}
		out = append(out, netip.MustParseAddrPort(text))
	}
	return out
}

// ready returns ready endpoints on a node.
func ready(node, texts string) []service.Endpoint {
	var out []service.Endpoint
	for _, b := range backendList(texts) {
		out = append(out, service.Endpoint{Backend: b, Node: node, Ready: true, Serving: true})
	}
	return out
}

// noSlots has no slots.
func noSlots(service.Frontend) (none rules.Held) { return none }

// web is a Service with one port and two endpoints, the first on node n1.
func web() *service.Service {
	return &service.Service{
		Name:       service.Name{Namespace: "default", Name: "web"},
		Created:    time.Unix(1000, 0),
		ClusterIPs: addrs("10.96.0.10"),
		Ports: []service.Port{{
			Name: "http", Protocol: service.TCP, Port: 80,
			Endpoints: append(ready("n1", "10.244.1.1:8080"), ready("n2", "10.244.2.1:8080")...),
		}},
	}
}

// compileAt compiles for node n1 with addresses of both families.
func compileAt(svc *service.Service, slots rules.Slots) *rules.Compiled {
	own := addrs("192.0.2.1 2001:db8::1")
	node := service.Node{Name: "n1", Zone: "a", Addrs: own, NodePortAddrs: own}
	return rules.Compile(svc, node, slots, rules.MaxShare)
}

// entryText returns all of an entry in one line.
func entryText(e rules.Entry) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s -> %s", e.Frontend, e.Shape.ChainName())
	if len(e.Backends) > 0 {
		fmt.Fprintf(&b, " %v", e.Backends)
	}
	if len(e.Numbers) > 0 {
		fmt.Fprintf(&b, " as %v", e.Numbers)
	}
	if len(e.Locals) > 0 {
		fmt.Fprintf(&b, " local %v", e.Locals)
	}
	if len(e.LocalNumbers) > 0 {
		fmt.Fprintf(&b, " as %v", e.LocalNumbers)
	}
	if e.Restricted {
		fmt.Fprintf(&b, " from %v", e.Sources)
	}
	return b.String()
}

func entryTexts(c *rules.Compiled) []string {
	var out []string
	for _, e := range c.Entries {
		out = append(out, entryText(e))
	}
	return out
}

func testConfig() rules.Config {
	return rules.Config{
		MasqueradeMark: 0x4000,
		PodTraffic:     rules.PodTraffic{CIDRs: prefixes("10.244.0.0/16 fd00:10:244::/56")},
		ServiceCIDRs:   prefixes("10.96.0.0/16 fd00:10:96::/112"),
		Families:       service.Families(),
	}
}

// putSvc compiles a Service with the slots of the Ruleset and puts it there.
func putSvc(r *rules.Ruleset, svc *service.Service) []rules.Conflict {
	return r.Put(compileAt(svc, r.Slots))
}

func linesOf(text string) []string { return strings.Split(strings.TrimSuffix(text, "\n"), "\n") }

func elementTexts(elements []nftables.Element) []string {
	var out []string
	for _, e := range elements {
		out = append(out, fmt.Sprintf("%s %s { %s }", e.Set.Family, e.Set.Kind, e))
	}
	return out
}

func rulesetText(t *testing.T, r *rules.Ruleset) string {
	t.Helper()
	var b strings.Builder
	if err := r.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func deltaText(t *testing.T, d *rules.Delta) string {
	t.Helper()
	var b strings.Builder
	if err := d.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
