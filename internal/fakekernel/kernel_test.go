package fakekernel

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// build makes a ruleset with one Service that has three endpoints.
func build(slots rules.Slots) *rules.Ruleset {
	r := rules.NewRuleset(rules.Config{MasqueradeMark: 1, Families: service.Families()})
	port := service.Port{Protocol: service.TCP, Port: 80}
	for _, backend := range []string{"10.1.0.1:80", "10.1.0.2:80", "10.1.0.3:80"} {
		port.Endpoints = append(port.Endpoints, service.Endpoint{
			Backend: netip.MustParseAddrPort(backend), Ready: true, Serving: true})
	}
	r.Put(rules.Compile(&service.Service{
		Name: service.Name{Namespace: "default", Name: "web"}, Created: time.Unix(0, 0),
		ClusterIPs: []netip.Addr{web.Addr}, Ports: []service.Port{port},
	}, service.Node{}, slots, rules.MaxShare))
	return r
}

// program programs the ruleset as the reconciler does, and returns the Delta and the ruleset.
func program(t *testing.T, k *Kernel) (*rules.Delta, *rules.Ruleset) {
	t.Helper()
	var ruleset *rules.Ruleset
	d, err := k.Diff(service.Families(), func(slots rules.Slots) *rules.Ruleset {
		ruleset = build(slots)
		return ruleset
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Apply(d); err != nil {
		t.Fatal(err)
	}
	if err := k.DeleteStale(d); err != nil {
		t.Fatal(err)
	}
	return d, ruleset
}

func checkDrift(t *testing.T, k *Kernel, want *rules.Ruleset, expected kernel.Drift) {
	t.Helper()
	if got, err := k.CheckDrift(want); err != nil || got != expected {
		t.Errorf("drift is %v, error %v; want %v", got, err, expected)
	}
}

// A ruleset is programmed once; changes by other processes are noticed, and repaired within the found slots.
func TestSync(t *testing.T) {
	k := New()
	d, ruleset := program(t, k)
	if len(d.Tables) != 2 || k.Transactions() != 1 {
		t.Errorf("first sync adds %d tables in %d transactions, want 2 in 1", len(d.Tables), k.Transactions())
	}
	checkDrift(t, k, ruleset, kernel.Unchanged)
	k.Edit(func(Tables) {})
	checkDrift(t, k, ruleset, kernel.Unknown)
	checkDrift(t, k, ruleset, kernel.Unchanged)

	slot := nftables.SlotElement(nftables.Endpoints, web, 0, netip.MustParseAddrPort("10.1.0.1:80"))
	k.Edit(func(ts Tables) { delete(ts[ip].Elements, slot.ElementID) })
	checkDrift(t, k, ruleset, kernel.Drifted)
	if d, _ = program(t, k); !slices.Equal(d.Add, []nftables.Element{slot}) {
		t.Errorf("repair adds %v, want %v", d.Add, slot)
	}
	for name, damage := range map[string]func(*Table){
		"rule": func(ts *Table) {
			c := ts.Chains["services"]
			c.Rules = c.Rules[1:]
			ts.Chains[c.Name] = c
		},
		"chain": func(ts *Table) { delete(ts.Chains, "nat-output") },
		"set":   func(ts *Table) { delete(ts.Sets, "hairpin") },
		"other layout": func(ts *Table) {
			s := ts.Sets["hairpin"]
			s.ID.Kind = nftables.ClusterIPs
			ts.Sets["hairpin"] = s
		},
		"hook": func(ts *Table) {
			c := ts.Chains["nat-output"]
			c.Hook = &nftables.Hook{Name: "output"}
			ts.Chains[c.Name] = c
		},
	} {
		before := k.Tables()
		k.Edit(func(ts Tables) { damage(ts[ip6]) })
		checkDrift(t, k, ruleset, kernel.Drifted)
		program(t, k)
		if diff := Difference(before, k.Tables()); diff != "" {
			t.Errorf("%s: repaired tables (-want +got):\n%s", name, diff)
		}
	}
	k.Edit(func(ts Tables) { clear(ts) })
	checkDrift(t, k, ruleset, kernel.Drifted)
}

// The slots come from the kernel, so endpoints stay where they are.
func TestSlots(t *testing.T) {
	k := New()
	program(t, k)
	first := netip.MustParseAddrPort("10.1.0.1:80")
	last := netip.MustParseAddrPort("10.1.0.3:80")
	k.Edit(func(ts Tables) { // exchange the first and the last
		for slot, backend := range map[int]service.Backend{0: last, 2: first} {
			e := nftables.SlotElement(nftables.Endpoints, web, slot, backend)
			ts[ip].Elements[e.ElementID] = e
		}
	})
	if d, _ := program(t, k); d.Size() > 0 {
		t.Errorf("endpoints in other slots lead to a Delta: %+v", d)
	}
}

// A call that fails on request leaves everything as it was.
func TestFailures(t *testing.T) {
	k := New()
	d, err := k.Diff(service.Families(), build)
	if err != nil {
		t.Fatal(err)
	}
	refused := errors.New("refused")
	calls := map[string]int{}
	k.Fail = func(method string) error { calls[method]++; return refused }
	_, diffErr := k.Diff(service.Families(), build)
	staleErr := k.DeleteStale(d)
	_, driftErr := k.CheckDrift(build(rules.Programmed{}.Slots()))
	for method, err := range map[string]error{
		"Diff": diffErr, "Apply": k.Apply(d), "DeleteStale": staleErr, "CheckDrift": driftErr,
	} {
		if err != refused || calls[method] != 1 {
			t.Errorf("%s: error %v after %d calls of Fail, want %v after 1",
				method, err, calls[method], refused)
		}
	}
	if len(k.Tables()) > 0 || k.Transactions() != 0 {
		t.Errorf("tables %v and %d transactions after failures", k.Tables(), k.Transactions())
	}
}
