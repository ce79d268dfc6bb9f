package rules

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Delta has the changes of one transaction, in the order of its fields. It may delete and add elements with
// the same key.
type Delta struct {
	Reset  []BrokenTable    // tables to delete
	Tables []service.Family // tables to create
	// Replace are sets to delete with their elements and to create anew, because their elements get counters
	// or lose them. Rules use the sets, so Chains has all chains of their tables.
	Replace []nftables.Set
	Sets    []nftables.Set   // to create
	Chains  []nftables.Chain // to create or rewrite
	Delete  []nftables.Element
	Add     []nftables.Element

	// StaleChains and StaleSets are unused after the transaction. A transaction of their own deletes them,
	// which may fail without harm: before Linux 6.2 a chain stays in use for a moment after the deletion of
	// the last element that leads to it.
	StaleChains []nftables.Chain
	StaleSets   []nftables.Set

	// Stale are frontends of UDP and SCTP whose established flows may lead to endpoints that they no
	// longer have. Those that are Gone have no Keep: the endpoints of their Service may live on.
	Stale []service.StaleFlows

	unused int // of Delete: shapes without a frontend, which nftproxy itself left
}

// BrokenTable is a table that cannot be repaired in place, and why.
type BrokenTable struct {
	Family service.Family
	Reason string
}

// Empty reports whether there is nothing to write.
func (d *Delta) Empty() bool { return d.Size()+len(d.StaleChains)+len(d.StaleSets) == 0 }

// Size returns the number of objects in the transaction.
func (d *Delta) Size() int {
	return len(d.Reset) + len(d.Tables) + len(d.Replace) + len(d.Sets) + len(d.Chains) +
		len(d.Delete) + len(d.Add)
}

// Repairs returns how many chains and elements the Delta changes, without the shapes that nftproxy itself
// left without a frontend.
func (d *Delta) Repairs() (chains, elements int) {
	return len(d.Chains), len(d.Delete) + len(d.Add) - d.unused
}

// Changes returns the difference between the ruleset and its state at the last call of Done.
func (r *Ruleset) Changes() *Delta {
	d := &Delta{}
	for _, s := range slices.SortedFunc(maps.Keys(r.changes.shapes), tableShape.compare) {
		d.Chains = append(d.Chains, s.chain(r.config))
		if !s.shape.isPart() {
			e := nftables.ShapeElement(s.family, r.number(s), s.chainName())
			old, exists := r.unused[e.ElementID]
			d.element(old, exists, e)
		}
	}
	for f, before := range r.changes.entries {
		after := r.owners[f].entry
		d.entry(r, before, after)
		d.stale(f, before, after)
	}
	for a, was := range r.changes.clusters {
		d.addr(nftables.ClusterIPs, a, 1, was, r.clusters[a] > 0)
	}
	for a, was := range r.changes.hairpins {
		d.addr(nftables.Hairpin, a, 2, was, r.hairpins[a] > 0)
	}
	d.sort()
	return d
}

// Done says that the kernel holds the ruleset as it is now.
func (r *Ruleset) Done() {
	for s := range r.changes.shapes {
		if !s.shape.isPart() {
			delete(r.unused, nftables.ShapeElement(s.family, r.number(s), "").ElementID)
		}
	}
	r.changes.reset()
}

// entry adds what turns the elements of one entry into those of another of the same
// frontend. Either may be nil.
func (d *Delta) entry(r *Ruleset, before, after *Entry) {
	var none Entry
	var had, wanted []nftables.Element
	if before == nil {
		before = &none
	} else {
		had = before.appendFrontend(nil, r.number(before.tableShape()))
	}
	if after == nil {
		after = &none
	} else {
		wanted = after.appendFrontend(nil, r.number(after.tableShape()))
	}
	if !slices.Equal(had, wanted) {
		d.elements(had, wanted)
	}
	f := after.Frontend
	if after == &none {
		f = before.Frontend
	}
	now := after.choices()
	for i, old := range before.choices() {
		if old.numbers != nil || now[i].numbers != nil {
			d.stickySlots(f, old, now[i])
		} else {
			d.slots(f, old, now[i])
		}
	}
}

// elements adds the changes between two lists of elements.
func (d *Delta) elements(before, after []nftables.Element) {
	have := make(map[nftables.ElementID]nftables.Element, len(before))
	for _, e := range before {
		have[e.ElementID] = e
	}
	for _, e := range after {
		old, ok := have[e.ElementID]
		delete(have, e.ElementID)
		d.element(old, ok, e)
	}
	for _, e := range before {
		if _, gone := have[e.ElementID]; gone {
			d.Delete = append(d.Delete, e)
		}
	}
}

// slots adds the changes between slots. There may be thousands and few differ, so it makes elements only of
// those that differ.
func (d *Delta) slots(f service.Frontend, before, after chosen) {
	for slot, b := range before.bySlot {
		if slot >= len(after.bySlot) || after.bySlot[slot] != b {
			d.Delete = append(d.Delete, before.element(f, slot))
		}
	}
	for slot, b := range after.bySlot {
		if slot >= len(before.bySlot) || before.bySlot[slot] != b {
			d.Add = append(d.Add, after.element(f, slot))
		}
	}
}

// stickySlots adds what turns the slots and numbered backends before into those after.
func (d *Delta) stickySlots(f service.Frontend, before, after chosen) {
	for slot, n := range before.numbers {
		if slot >= len(after.numbers) || after.numbers[slot] != n {
			d.Delete = append(d.Delete, nftables.StickySlotElement(before.slots, f, slot, n))
		}
	}
	for slot, n := range after.numbers {
		if slot >= len(before.numbers) || before.numbers[slot] != n {
			d.Add = append(d.Add, nftables.StickySlotElement(after.slots, f, slot, n))
		}
	}
	had, wanted := before.byNumber(), after.byNumber()
	for n, b := range had {
		if wanted[n] != b {
			d.Delete = append(d.Delete, nftables.StickyBackendElement(before.backends, f, n, b))
		}
	}
	for n, b := range wanted {
		if had[n] != b {
			d.Add = append(d.Add, nftables.StickyBackendElement(after.backends, f, n, b))
		}
	}
}

// element adds what turns an element, if there is one, into e.
func (d *Delta) element(old nftables.Element, ok bool, e nftables.Element) {
	if ok && old == e {
		return
	}
	if ok {
		d.Delete = append(d.Delete, old)
	}
	d.Add = append(d.Add, e)
}

func (d *Delta) addr(k nftables.SetKind, a netip.Addr, n int, was, is bool) {
	switch {
	case was && !is:
		d.Delete = append(d.Delete, nftables.AddrElement(k, a, n))
	case is && !was:
		d.Add = append(d.Add, nftables.AddrElement(k, a, n))
	}
}

// sort puts the Delta into an order that depends only on its content.
func (d *Delta) sort() {
	slices.SortFunc(d.Delete, compareElements)
	slices.SortFunc(d.Add, compareElements)
	slices.SortFunc(d.Chains, nftables.Chain.Compare)
	slices.SortFunc(d.StaleChains, nftables.Chain.Compare)
	slices.SortFunc(d.Replace, nftables.Set.Compare)
	slices.SortFunc(d.Sets, nftables.Set.Compare)
	slices.SortFunc(d.StaleSets, nftables.Set.Compare)
	slices.SortFunc(d.Stale, func(a, b service.StaleFlows) int { return a.Frontend.Compare(b.Frontend) })
}

func compareElements(a, b nftables.Element) int { return a.ElementID.Compare(b.ElementID) }

// changes has the state at the last call of Done of everything that changed since then.
type changes struct {
	entries  map[service.Frontend]*Entry
	clusters map[netip.Addr]bool
	hairpins map[netip.Addr]bool
	shapes   map[tableShape]struct{} // that have no chain yet
}

func (c *changes) reset() {
	*c = changes{
		entries:  map[service.Frontend]*Entry{},
		clusters: map[netip.Addr]bool{},
		hairpins: map[netip.Addr]bool{},
		shapes:   map[tableShape]struct{}{},
	}
}

func (c *changes) entry(f service.Frontend, before *Entry) {
	if _, ok := c.entries[f]; !ok {
		c.entries[f] = before
	}
}

func (c *changes) addr(k nftables.SetKind, a netip.Addr, before bool) {
	in := c.clusters
	if k == nftables.Hairpin {
		in = c.hairpins
	}
	if _, ok := in[a]; !ok {
		in[a] = before
	}
}
