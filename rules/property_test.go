package rules_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/nftproxy/nftproxy/internal/fakekernel"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// rounds is the number of seeds of each test of properties; FuzzProperties takes others.
const rounds = 300

func forSeeds(t *testing.T, check func(*testing.T, uint64)) {
	for seed := range uint64(rounds) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { check(t, seed) })
	}
}

// One Delta brings the kernel from any state to the desired one, and then nothing is left to do.
func TestDiffProperties(t *testing.T) {
	forSeeds(t, checkDiff)
}

// A sequence of changes, committed in groups, ends where a fresh Ruleset begins.
func TestChangesProperties(t *testing.T) {
	forSeeds(t, checkChanges)
}

// The owner of a frontend does not depend on the order of events.
func TestOrderProperties(t *testing.T) {
	forSeeds(t, checkOrder)
}

// The first Delta allocates the space that it needs.
func TestSizeProperties(t *testing.T) {
	forSeeds(t, func(t *testing.T, seed uint64) {
		g := newGenerator(seed)
		r := g.ruleset(g.config(), nil, 8)
		n := 0
		for range r.Elements() {
			n++
		}
		if r.Size() != n {
			t.Errorf("size %d, want %d", r.Size(), n)
		}
	})
}

func FuzzProperties(f *testing.F) {
	f.Add(uint64(rounds))
	f.Fuzz(func(t *testing.T, seed uint64) {
		checkDiff(t, seed)
		checkChanges(t, seed)
		checkOrder(t, seed)
	})
}

// checkDiff checks Diff with an empty kernel, one that holds an older state, and a damaged one.
func checkDiff(t *testing.T, seed uint64) {
	t.Helper()
	g := newGenerator(seed)
	config := g.config()
	tables := fakekernel.Tables{}
	if g.chance(80) {
		older := config
		if g.chance(30) {
			older = g.config()
		}
		tables = tablesOf(g.ruleset(older, nil, 8))
		if g.chance(70) {
			g.damage(tables)
		}
	}
	k := kernelWith(tables)
	r := g.ruleset(config, programmed(k, nil).Slots(), 8)
	other := k.Tables() // a family that is not desired is left alone
	maps.DeleteFunc(other, func(f service.Family, _ *fakekernel.Table) bool {
		return slices.Contains(config.Families, f)
	})

	d := rules.Diff(r, programmed(k, r))
	apply(t, k, d)
	deleteStale(t, k, d)
	want := tablesOf(r)
	maps.Copy(want, other)
	if diff := fakekernel.Difference(want, k.Tables()); diff != "" {
		t.Fatalf("kernel after the Delta (-want +got):\n%s", diff)
	}
	if again := rules.Diff(r, programmed(k, r)); !again.Empty() {
		t.Fatalf("a second Delta is not empty:\n%s", deltaText(t, again))
	}
}

// checkChanges runs a Ruleset through random Put and Remove.
func checkChanges(t *testing.T, seed uint64) {
	t.Helper()
	g := newGenerator(seed)
	config, node := g.config(), g.node()
	r, k := rules.NewRuleset(config), fakekernel.New()
	step := func(d *rules.Delta) {
		t.Helper()
		apply(t, k, d)
		if g.chance(80) { // the transaction after it may fail
			deleteStale(t, k, d)
		}
	}
	step(rules.Diff(r, rules.Programmed{}))
	services, compiled := map[int]*service.Service{}, map[service.Name]*rules.Compiled{}
	for range 30 {
		i := g.IntN(6)
		if g.chance(25) {
			r.Remove(name(i))
			delete(services, i)
			delete(compiled, name(i))
		} else {
			services[i] = g.change(i, services[i])
			c := rules.Compile(services[i], node, r.Slots)
			compiled[c.Name] = c
			r.Put(c)
		}
		if g.chance(40) {
			step(r.Changes())
			r.Done()
		}
	}
	step(r.Changes())
	r.Done()
	if left := r.Changes(); !left.Empty() {
		t.Fatalf("changes after Done:\n%s", deltaText(t, left))
	}
	checkFresh(t, config, compiled, k)
}

// checkFresh checks that the kernel holds what a fresh Ruleset of the same Compiled wants.
func checkFresh(t *testing.T, config rules.Config, compiled map[service.Name]*rules.Compiled,
	k *fakekernel.Kernel) {
	t.Helper()
	fresh := rules.NewRuleset(config)
	for _, name := range slices.SortedFunc(maps.Keys(compiled), service.Name.Compare) {
		fresh.Put(compiled[name])
	}
	want, got := tablesOf(fresh), withoutSpare(k.Tables())
	for f, table := range got { // left behind where the cleanup failed
		keep := want[f]
		maps.DeleteFunc(table.Chains, func(name string, _ nftables.Chain) bool {
			return !has(keep.Chains, name)
		})
		maps.DeleteFunc(table.Sets, func(name string, _ nftables.Set) bool {
			return !has(keep.Sets, name)
		})
	}
	if diff := fakekernel.Difference(withoutSpare(want), got); diff != "" {
		t.Fatalf("kernel after all changes (-want +got):\n%s", diff)
	}
	d := rules.Diff(fresh, programmed(k, fresh))
	apply(t, k, d)
	tables := k.Tables()
	d.Chains = slices.DeleteFunc(d.Chains, func(c nftables.Chain) bool {
		return rules.IsShapeChain(c.Name) && tables[c.Family].ChainUser(c.Name) == ""
	})
	if d.Size() > 0 {
		t.Fatalf("Delta of a fresh Ruleset:\n%s", deltaText(t, d))
	}
	deleteStale(t, k, d)
	// Chains of shapes without a frontend may stay: they alone are not a reason to write.
	if diff := fakekernel.Difference(withoutSpare(want), withoutSpare(k.Tables())); diff != "" {
		t.Fatalf("kernel after a restart (-want +got):\n%s", diff)
	}
}

// checkOrder puts the same Services in two orders, with detours.
func checkOrder(t *testing.T, seed uint64) {
	t.Helper()
	g := newGenerator(seed)
	config, node := g.config(), g.node()
	services := make([]*service.Service, 1+g.IntN(7))
	for i := range services {
		services[i] = g.service(i)
	}
	run := func() map[service.Frontend]service.Name {
		r := rules.NewRuleset(config)
		for _, i := range g.Perm(len(services)) {
			if g.chance(30) {
				r.Put(rules.Compile(g.service(i), node, r.Slots))
			}
			if g.chance(30) {
				r.Remove(name(g.IntN(len(services))))
			}
		}
		for _, i := range g.Perm(len(services)) {
			r.Put(rules.Compile(services[i], node, r.Slots))
		}
		return r.Owners()
	}
	first, second := run(), run()
	if !maps.Equal(first, second) {
		t.Fatalf("owners depend on the order of events:\n%v\n%v", first, second)
	}
	for f, owner := range first {
		checkOwner(t, services, node, f, owner)
	}
}

// checkOwner checks that no older Service claims the frontend.
func checkOwner(t *testing.T, services []*service.Service, node service.Node, f service.Frontend,
	owner service.Name) {
	t.Helper()
	var best *service.Service
	for _, svc := range services {
		claims := slices.ContainsFunc(rules.Compile(svc, node, noSlots).Entries,
			func(e rules.Entry) bool { return e.Frontend == f })
		if claims && (best == nil || svc.Created.Before(best.Created) ||
			svc.Created.Equal(best.Created) && svc.Name.Compare(best.Name) < 0) {
			best = svc
		}
	}
	if best == nil || best.Name != owner {
		t.Fatalf("%s belongs to %s, want %v", f, owner, best)
	}
}
