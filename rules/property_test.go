package rules_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/internal/fakekernel"
	"github.com/nftproxy/nftproxy/proxier/kernel"
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

// A sequence of changes, committed in groups by processes one after the other, ends where a fresh Ruleset
// begins.
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
	want, got := tablesOf(r), k.Tables()
	maps.Copy(want, other)
	if d.Size() == 0 { // unused shapes alone are not a reason to write
		got = withoutSpare(got)
	}
	if diff := fakekernel.Difference(want, got); diff != "" {
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
	p := &process{
		g: g, config: g.config(), node: g.node(), kernel: fakekernel.New(),
		services: map[int]*service.Service{}, compiled: map[service.Name]*rules.Compiled{},
	}
	p.start(t)
	for range 30 {
		p.change()
		if g.chance(40) {
			p.commit(t)
		}
		if g.chance(5) {
			p.start(t)
		}
	}
	p.commit(t)
	if left := p.ruleset.Changes(); !left.Empty() {
		t.Fatalf("changes after Done:\n%s", deltaText(t, left))
	}
	p.checkFresh(t)
}

// process is what the reconciler does: it programs everything at its start, and changes afterwards.
type process struct {
	g        generator
	config   rules.Config
	node     service.Node
	kernel   *fakekernel.Kernel
	ruleset  *rules.Ruleset
	services map[int]*service.Service
	compiled map[service.Name]*rules.Compiled
}

// start builds the ruleset anew, with the slots and numbers in the kernel, and programs the difference.
func (p *process) start(t *testing.T) {
	t.Helper()
	d, err := p.kernel.Diff(p.config.Families, func(slots rules.Slots) *rules.Ruleset {
		p.ruleset = rules.NewRuleset(p.config)
		for _, i := range slices.Sorted(maps.Keys(p.services)) {
			p.put(rules.Compile(p.services[i], p.node, slots, rules.MaxShare))
		}
		return p.ruleset
	})
	if err != nil {
		t.Fatal(err)
	}
	apply(t, p.kernel, d)
	deleteStale(t, p.kernel, d)
	p.ruleset.Done()
	p.kernel.Edit(func(fakekernel.Tables) {}) // of a table that is not ours
	if drift, err := p.kernel.CheckDrift(p.ruleset); drift != kernel.Unknown || err != nil {
		t.Fatalf("drift %v after a start, error %v; want %v", drift, err, kernel.Unknown)
	}
}

func (p *process) put(c *rules.Compiled) {
	p.compiled[c.Name] = c
	p.ruleset.Put(c)
}

// change changes or removes one of six Services.
func (p *process) change() {
	i := p.g.IntN(6)
	if p.g.chance(25) {
		p.ruleset.Remove(name(i))
		delete(p.services, i)
		delete(p.compiled, name(i))
		return
	}
	p.services[i] = p.g.change(i, p.services[i])
	p.put(rules.Compile(p.services[i], p.node, p.ruleset.Slots, rules.MaxShare))
}

// commit programs the changes since the last commit.
func (p *process) commit(t *testing.T) {
	t.Helper()
	d := p.ruleset.Changes()
	apply(t, p.kernel, d)
	deleteStale(t, p.kernel, d)
	p.ruleset.Done()
	p.checkCounts(t)
}

// checkCounts compares the numbers of elements that the ruleset keeps with those in the kernel.
func (p *process) checkCounts(t *testing.T) {
	t.Helper()
	got := map[nftables.SetID]int{}
	for _, table := range p.kernel.Tables() {
		for id := range table.Elements {
			got[id.Set]++
		}
	}
	want := p.ruleset.Counts()
	maps.DeleteFunc(want, func(_ nftables.SetID, n int) bool { return n == 0 })
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Fatalf("numbers of elements (-counted +in the kernel):\n%s", diff)
	}
}

// checkFresh checks that the kernel holds what a fresh Ruleset of the same Compiled wants.
func (p *process) checkFresh(t *testing.T) {
	t.Helper()
	fresh := rules.NewRuleset(p.config)
	for _, name := range slices.SortedFunc(maps.Keys(p.compiled), service.Name.Compare) {
		fresh.Put(p.compiled[name])
	}
	d := rules.Diff(fresh, programmed(p.kernel, fresh)) // fresh has the numbers in the kernel from now on
	if diff := fakekernel.Difference(tablesOf(fresh), withoutSpare(p.kernel.Tables())); diff != "" {
		t.Fatalf("kernel after all changes (-want +got):\n%s", diff)
	}
	// Shapes without a frontend may stay: they alone are not a reason to write.
	if !d.Empty() {
		t.Fatalf("Delta of a fresh Ruleset:\n%s", deltaText(t, d))
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
				r.Put(rules.Compile(g.service(i), node, r.Slots, rules.MaxShare))
			}
			if g.chance(30) {
				r.Remove(name(g.IntN(len(services))))
			}
		}
		for _, i := range g.Perm(len(services)) {
			r.Put(rules.Compile(services[i], node, r.Slots, rules.MaxShare))
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

// checkOwner checks that the frontend belongs to the Service that claims it as the strongest kind, and of
// those to the oldest.
func checkOwner(t *testing.T, services []*service.Service, node service.Node, f service.Frontend,
	owner service.Name) {
	t.Helper()
	kinds := map[*service.Service]rules.Kind{}
	stronger := func(a, b *service.Service) int {
		return cmp.Or(cmp.Compare(kinds[a], kinds[b]), a.Created.Compare(b.Created), a.Name.Compare(b.Name))
	}
	var best *service.Service
	for _, svc := range services {
		entries := rules.Compile(svc, node, noSlots, rules.MaxShare).Entries
		i := slices.IndexFunc(entries, func(e rules.Entry) bool { return e.Frontend == f })
		if i < 0 {
			continue
		}
		if kinds[svc] = entries[i].Kind; best == nil || stronger(svc, best) < 0 {
			best = svc
		}
	}
	if best == nil || best.Name != owner {
		t.Fatalf("%s belongs to %s, want %v", f, owner, best)
	}
}
