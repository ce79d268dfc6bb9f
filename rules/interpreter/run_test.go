package interpreter_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/interpreter"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// tables are chains and elements that a test names.
type tables struct {
	chains   []nftables.Chain
	elements []nftables.Element
	err      error // of Element
}

func (t tables) BaseChains(service.Family) (base []nftables.Chain, err error) {
	for _, c := range t.chains {
		if c.Hook != nil {
			base = append(base, c)
		}
	}
	return base, nil
}

func (t tables) Chain(_ service.Family, name string) (nftables.Chain, bool, error) {
	for _, c := range t.chains {
		if c.Name == name {
			return c, true, nil
		}
	}
	return nftables.Chain{}, false, nil
}

func (t tables) Element(id nftables.ElementID) (nftables.Element, bool, error) {
	for _, e := range t.elements {
		if e.ElementID == id {
			return e, true, t.err
		}
	}
	return nftables.Element{}, false, t.err
}

var (
	client   = netip.MustParseAddr("10.244.1.12")
	frontend = service.Frontend{Addr: netip.MustParseAddr("10.96.0.10"), Protocol: service.TCP, Port: 80}
)

func packet() interpreter.Packet {
	return interpreter.Packet{Src: client, Dst: frontend.Addr, Protocol: frontend.Protocol, Port: frontend.Port,
		Interface: "veth0"}
}

func nowhere(netip.Addr) bool { return false }

func base(name string, priority int, statements ...nftables.Statement) nftables.Chain {
	return nftables.Chain{Family: service.IPv4, Name: name,
		Hook: &nftables.Hook{Name: "prerouting", Priority: priority}, Rules: []nftables.Rule{statements}}
}

// unknown is a statement of a kind that the package has not heard of.
type unknown struct{ nftables.Statement }

func TestUnknownStatement(t *testing.T) {
	rule := tables{chains: []nftables.Chain{base("pre", 0, unknown{nftables.Drop{}})}}
	_, err := interpreter.Run(rule, nowhere, packet())
	if err == nil || !strings.Contains(err.Error(), "unknown statement interpreter_test.unknown") ||
		!strings.Contains(err.Error(), "chain pre") {
		t.Errorf("error %v, want one that names the statement and the chain", err)
	}
}

func TestErrors(t *testing.T) {
	lost := errors.New("lost")
	dispatch := nftables.InSet{Key: nftables.FrontendKey(), Set: nftables.Firewalled.String()}
	for name, test := range map[string]struct {
		tables tables
		want   string
	}{
		"no chain": {tables{chains: []nftables.Chain{base("pre", 0, nftables.Jump{Chain: "none"})}},
			"table ip has no chain none"},
		"element": {tables{chains: []nftables.Chain{base("pre", 0, dispatch)}, err: lost}, "lost"},
		"no set": {tables{chains: []nftables.Chain{base("pre", 0, nftables.InSet{Set: "x"})}},
			"unknown set x"},
		"circle": {tables{chains: []nftables.Chain{base("pre", 0, nftables.Jump{Chain: "pre"})}},
			"do not come to an end"},
	} {
		if _, err := interpreter.Run(test.tables, nowhere, packet()); err == nil ||
			!strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", name, err, test.want)
		}
	}
}

// Base chains are called in the order of their priority, and none after the first translation.
func TestFirstTranslationEndsTheHook(t *testing.T) {
	endpoint := netip.MustParseAddrPort("10.244.2.11:8080")
	dnat := nftables.DNAT{Key: nftables.SlotKey(1), Map: nftables.Endpoints.String()}
	slot := nftables.SlotElement(nftables.Endpoints, frontend, 0, endpoint)
	for name, test := range map[string]struct {
		dropAt int
		want   interpreter.Verdict
	}{"before": {-110, interpreter.Dropped}, "after": {-90, interpreter.Translated}} {
		t.Run(name, func(t *testing.T) {
			both := tables{
				chains: []nftables.Chain{
					base("drop", test.dropAt, nftables.Drop{}), base("dnat", -100, dnat)},
				elements: []nftables.Element{slot},
			}
			outcomes, err := interpreter.Run(both, nowhere, packet())
			if err != nil || len(outcomes) != 1 || outcomes[0].Verdict != test.want {
				t.Fatalf("outcomes %+v, error %v, want %s", outcomes, err, test.want)
			}
		})
	}
}

// A slot that is missing in the map leaves the connection as it is, and the other slots work.
func TestMissingSlot(t *testing.T) {
	dnat := nftables.DNAT{Key: nftables.SlotKey(3), Map: nftables.Endpoints.String()}
	one, two := netip.MustParseAddrPort("10.244.2.11:8080"), netip.MustParseAddrPort("10.244.2.12:8080")
	outcomes, err := interpreter.Run(tables{
		chains: []nftables.Chain{base("dnat", -100, dnat)},
		elements: []nftables.Element{nftables.SlotElement(nftables.Endpoints, frontend, 0, one),
			nftables.SlotElement(nftables.Endpoints, frontend, 2, two)},
	}, nowhere, packet())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range outcomes {
		got = append(got, o.Verdict.String()+" "+o.Endpoint.String())
	}
	want := []string{"untouched invalid AddrPort", "endpoint " + one.String(), "endpoint " + two.String()}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// A rule whose random choice is not reached, or finds nothing, does not multiply the ways: with policy Local
// there are two choices among thousands of endpoints, one after the other.
func TestWaysDoNotMultiply(t *testing.T) {
	const endpoints = 3000
	r := rules.NewRuleset(rules.Config{MasqueradeMark: 1, Families: service.Families()})
	port := service.Port{Protocol: service.TCP, Port: 80}
	addr := netip.MustParseAddr("10.244.0.0")
	for range endpoints {
		addr = addr.Next()
		port.Endpoints = append(port.Endpoints, service.Endpoint{
			Backend: netip.AddrPortFrom(addr, 80), Node: "here", Ready: true, Serving: true})
	}
	external := netip.MustParseAddr("198.51.100.1")
	r.Put(rules.Compile(&service.Service{Name: service.Name{Namespace: "default", Name: "web"},
		ClusterIPs: []netip.Addr{frontend.Addr}, ExternalIPs: []netip.Addr{external}, ExternalLocal: true,
		Ports: []service.Port{port}}, service.Node{Name: "here"}, r.Slots, rules.MaxShare))
	p := packet()
	p.Dst = external
	counting := &countingTables{Lookup: r.Lookup()}
	outcomes, err := interpreter.Run(counting, nowhere, p)
	if err != nil || len(outcomes) != endpoints {
		t.Fatalf("%d outcomes, error %v, want %d", len(outcomes), err, endpoints)
	}
	if most := 5 * endpoints; counting.asked > most {
		t.Errorf("asked for %d elements, want at most %d", counting.asked, most)
	}
}

// countingTables counts the elements that they are asked for.
type countingTables struct {
	*rules.Lookup
	asked int
}

func (c *countingTables) Element(id nftables.ElementID) (nftables.Element, bool, error) {
	c.asked++
	return c.Lookup.Element(id)
}

// sticky is a ruleset with a Service with session affinity, and two endpoints.
func sticky(t *testing.T, clusterIP string) (*rules.Ruleset, []service.Backend) {
	t.Helper()
	r := rules.NewRuleset(rules.Config{MasqueradeMark: 1 << 14, Families: service.Families()})
	backends := []service.Backend{netip.MustParseAddrPort("10.244.1.11:8080"),
		netip.MustParseAddrPort("10.244.2.11:8080")}
	addr := netip.MustParseAddr(clusterIP)
	if addr.Is6() {
		backends = []service.Backend{netip.MustParseAddrPort("[fd00::1]:8080"),
			netip.MustParseAddrPort("[fd00::2]:8080")}
	}
	port := service.Port{Protocol: service.TCP, Port: 80}
	for _, b := range backends {
		port.Endpoints = append(port.Endpoints, service.Endpoint{Backend: b, Ready: true, Serving: true})
	}
	r.Put(rules.Compile(&service.Service{Name: service.Name{Namespace: "default", Name: "web"},
		ClusterIPs: []netip.Addr{addr}, AffinityTimeout: time.Minute, Ports: []service.Port{port}},
		service.Node{Name: "here"}, r.Slots, rules.MaxShare))
	return r, backends
}

// withClients are tables with entries that the kernel made.
type withClients struct {
	*rules.Lookup
	clients map[nftables.ElementID]nftables.Element
}

func (w withClients) Element(id nftables.ElementID) (nftables.Element, bool, error) {
	if e, ok := w.clients[id]; ok {
		return e, true, nil
	}
	return w.Lookup.Element(id)
}

// A new client gets any endpoint and is remembered with it, a known one gets its own, and one whose endpoint is
// gone is a new one.
func TestAffinity(t *testing.T) {
	for _, family := range []struct{ client, clusterIP string }{
		{"10.244.1.12", "10.96.0.10"}, {"fd00::99", "fd00:10:96::10"},
	} {
		r, backends := sticky(t, family.clusterIP)
		p := packet()
		p.Src, p.Dst = netip.MustParseAddr(family.client), netip.MustParseAddr(family.clusterIP)
		lookup := withClients{r.Lookup(), map[nftables.ElementID]nftables.Element{}}
		outcomes, err := interpreter.Run(lookup, nowhere, p)
		if err != nil || len(outcomes) != 2 || outcomes[1].Endpoint != backends[1] ||
			outcomes[1].Remembered == nil || outcomes[1].Remembered.Known {
			t.Fatalf("a new client: outcomes %+v, error %v", outcomes, err)
		}
		second := outcomes[1].Remembered
		known := nftables.StickySlotElement(nftables.StickySlots,
			service.Frontend{Addr: p.Dst, Protocol: p.Protocol, Port: p.Port}, 0, second.Number)
		lookup.clients[second.ID] = nftables.Element{ElementID: second.ID, Data: known.Data}
		outcomes, err = interpreter.Run(lookup, nowhere, p)
		if err != nil || len(outcomes) != 1 || outcomes[0].Endpoint != backends[1] ||
			outcomes[0].Remembered == nil || !outcomes[0].Remembered.Known {
			t.Fatalf("a known client: outcomes %+v, error %v", outcomes, err)
		}
		gone := known
		gone.Data = nftables.Data{1, 2, 3, 4}
		lookup.clients[second.ID] = nftables.Element{ElementID: second.ID, Data: gone.Data}
		outcomes, err = interpreter.Run(lookup, nowhere, p)
		if err != nil || len(outcomes) != 2 || outcomes[0].Remembered.Known ||
			outcomes[0].Remembered.Number == outcomes[1].Remembered.Number {
			t.Fatalf("a client whose endpoint is gone: outcomes %+v, error %v", outcomes, err)
		}
	}
}

func TestTraceNamesRules(t *testing.T) {
	r, _ := sticky(t, "10.96.0.10")
	p := packet()
	p.Port = 81
	outcomes, err := interpreter.Run(r.Lookup(), nowhere, p)
	if err != nil || len(outcomes) != 1 || outcomes[0].Verdict != interpreter.Refused {
		t.Fatalf("outcomes %+v, error %v", outcomes, err)
	}
	steps := outcomes[0].Steps.List()
	last := steps[len(steps)-1]
	if last.Chain != "no-such-port" || last.Text() != "meta l4proto tcp reject with tcp reset" {
		t.Errorf("the last step is %s: %s", last.Chain, last.Text())
	}
}
