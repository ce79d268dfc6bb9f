package rules

import (
	"maps"
	"slices"
	"testing"

	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// rounds is how many seeds the properties are tried with; FuzzProperties tries others.
const rounds = 300

// What is programmed, whatever it is, becomes what is desired by one Delta, and
// then there is nothing left to do.
func TestDiffProperties(t *testing.T) {
	for seed := range uint64(rounds) {
		checkDiff(t, seed)
	}
}

// A sequence of changes, committed in groups, ends where a fresh Ruleset begins.
func TestChangesProperties(t *testing.T) {
	for seed := range uint64(rounds) {
		checkChanges(t, seed)
	}
}

// Who owns a frontend does not depend on the order of events.
func TestOrderProperties(t *testing.T) {
	for seed := range uint64(rounds) {
		checkOrder(t, seed)
	}
}

// The room that the first Delta makes is what it needs.
func TestSizeProperties(t *testing.T) {
	for seed := range uint64(rounds) {
		g := newGenerator(seed)
		r := g.ruleset(g.config(), nil, 8)
		n := 0
		for range r.elements() {
			n++
		}
		if r.size() != n {
			t.Errorf("seed %d: size %d, want %d", seed, r.size(), n)
		}
	}
}

func FuzzProperties(f *testing.F) {
	f.Add(uint64(rounds))
	f.Fuzz(func(t *testing.T, seed uint64) {
		checkDiff(t, seed)
		checkChanges(t, seed)
		checkOrder(t, seed)
	})
}

// checkDiff checks Diff against an empty kernel, one that holds an older state, and a damaged one.
func checkDiff(t *testing.T, seed uint64) {
	t.Helper()
	g := newGenerator(seed)
	config := g.config()
	kernel := model{}
	if g.chance(80) {
		older := config
		if g.chance(30) {
			older = g.config()
		}
		kernel = modelOf(g.ruleset(older, nil, 8))
		if g.chance(70) {
			g.damage(kernel)
		}
	}
	programmed := kernel.programmed(NewRuleset(config))
	r := g.ruleset(config, programmed.Slots(), 8)
	programmed = kernel.programmed(r)
	foreign := maps.Clone(kernel)
	maps.DeleteFunc(foreign, func(f service.Family, _ *modelTable) bool { return slices.Contains(config.Families, f) })

	d := Diff(r, programmed)
	if err := kernel.commit(d); err != nil {
		t.Fatalf("seed %d: commit: %v\non %s\n%s", seed, err, describe(programmed), deltaText(t, d))
	}
	if err := kernel.clean(d); err != nil {
		t.Fatalf("seed %d: clean up: %v\n%s", seed, err, deltaText(t, d))
	}
	want := modelOf(r)
	maps.Copy(want, foreign) // a family that is not desired is left alone
	if diff := differences(want, kernel); diff != "" {
		t.Fatalf("seed %d: kernel after the Delta (-want +got):\n%s", seed, diff)
	}
	if again := Diff(r, kernel.programmed(r)); !again.Empty() {
		t.Fatalf("seed %d: Delta of what is programmed is not empty:\n%s", seed, deltaText(t, again))
	}
}

// checkChanges runs a Ruleset through random Put and Remove.
func checkChanges(t *testing.T, seed uint64) {
	t.Helper()
	g := newGenerator(seed)
	config, node := g.config(), g.node()
	r, kernel := NewRuleset(config), model{}
	step := func(d *Delta) {
		t.Helper()
		if err := kernel.commit(d); err != nil {
			t.Fatalf("seed %d: commit: %v\n%s", seed, err, deltaText(t, d))
		}
		if g.chance(20) {
			return // the transaction after it may fail
		}
		if err := kernel.clean(d); err != nil {
			t.Fatalf("seed %d: clean up: %v\n%s", seed, err, deltaText(t, d))
		}
	}
	step(Diff(r, Programmed{}))
	services, compiled := map[int]*service.Service{}, map[service.Name]*Compiled{}
	for range 30 {
		i := g.IntN(6)
		if g.chance(25) {
			r.Remove(name(i))
			delete(services, i)
			delete(compiled, name(i))
		} else {
			services[i] = g.change(i, services[i])
			c := Compile(services[i], node, r.Slots)
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
		t.Fatalf("seed %d: changes after Done:\n%s", seed, deltaText(t, left))
	}
	checkFresh(t, seed, config, compiled, kernel)
}

// checkFresh checks that the kernel holds what a fresh Ruleset of the same Compiled wants.
func checkFresh(t *testing.T, seed uint64, config Config, compiled map[service.Name]*Compiled, kernel model) {
	t.Helper()
	fresh := NewRuleset(config)
	for _, name := range slices.SortedFunc(maps.Keys(compiled), service.Name.Compare) {
		fresh.Put(compiled[name])
	}
	want, got := modelOf(fresh), kernel.withoutSpare()
	for f, table := range got { // left behind where the clean-up failed
		maps.DeleteFunc(table.chains, func(name string, _ nftables.Chain) bool { return !has(want[f].chains, name) })
		maps.DeleteFunc(table.sets, func(name string, _ nftables.Set) bool { return !has(want[f].sets, name) })
	}
	if diff := differences(want.withoutSpare(), got); diff != "" {
		t.Fatalf("seed %d: kernel after all changes (-want +got):\n%s", seed, diff)
	}
	d := Diff(fresh, kernel.programmed(fresh))
	if err := kernel.commit(d); err != nil {
		t.Fatalf("seed %d: commit after a restart: %v\n%s", seed, err, deltaText(t, d))
	}
	d.Chains = slices.DeleteFunc(d.Chains, func(c nftables.Chain) bool {
		return isShapeChain(c.Name) && kernel[c.Family].usersOfChain(c.Name) == ""
	})
	if d.Size() > 0 {
		t.Fatalf("seed %d: Delta of a fresh Ruleset:\n%s", seed, deltaText(t, d))
	}
	if err := kernel.clean(d); err != nil {
		t.Fatalf("seed %d: clean up after a restart: %v\n%s", seed, err, deltaText(t, d))
	}
	// Chains of shapes that nobody has may stay: they alone are no reason to write.
	if diff := differences(want.withoutSpare(), kernel.withoutSpare()); diff != "" {
		t.Fatalf("seed %d: kernel after a restart (-want +got):\n%s", seed, diff)
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
		r := NewRuleset(config)
		for _, i := range g.Perm(len(services)) {
			if g.chance(30) {
				r.Put(Compile(g.service(i), node, r.Slots))
			}
			if g.chance(30) {
				r.Remove(name(g.IntN(len(services))))
			}
		}
		for _, i := range g.Perm(len(services)) {
			r.Put(Compile(services[i], node, r.Slots))
		}
		owners := map[service.Frontend]service.Name{}
		for f, c := range r.owners {
			owners[f] = c.by.Name
		}
		return owners
	}
	first, second := run(), run()
	if !maps.Equal(first, second) {
		t.Fatalf("seed %d: owners depend on the order of events:\n%v\n%v", seed, first, second)
	}
	for f, owner := range first {
		checkOwner(t, seed, services, node, f, owner)
	}
}

// checkOwner checks that no older Service claims the frontend.
func checkOwner(t *testing.T, seed uint64, services []*service.Service, node service.Node, f service.Frontend, owner service.Name) {
	t.Helper()
	var best *service.Service
	for _, svc := range services {
		claims := slices.ContainsFunc(Compile(svc, node, noSlots).Entries, func(e Entry) bool { return e.Frontend == f })
		if claims && (best == nil || svc.Created.Before(best.Created) ||
			svc.Created.Equal(best.Created) && svc.Name.Compare(best.Name) < 0) {
			best = svc
		}
	}
	if best == nil || best.Name != owner {
		t.Fatalf("seed %d: %s belongs to %s, want %v", seed, f, owner, best)
	}
}
