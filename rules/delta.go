package rules

import (
	"net/netip"
	"slices"

	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Delta is what one transaction changes. Its order is: tables that start afresh,
// tables, sets, chains with their rules, elements that go, elements that come.
// Elements of one set may go and come under the same key.
type Delta struct {
	Reset  []BrokenTable    // tables to delete first
	Tables []service.Family // tables to create
	Sets   []nftables.Set   // to create
	Chains []nftables.Chain // to create or rewrite
	Delete []nftables.Element
	Add    []nftables.Element

	// StaleChains and StaleSets have no user any more once the transaction is
	// committed. They go in a transaction of their own, which may fail without
	// harm: before Linux 6.2 a chain counts as used for a moment after the last
	// element that went to it.
	StaleChains []nftables.Chain
	StaleSets   []nftables.Set

	// Forget are memories that may know endpoints which are gone. Their maps are
	// filled by the kernel, so entries for other than Backends are deleted after
	// the commit.
	ExpireClients []Sticky

	// Stale are frontends of UDP and SCTP that flows must not lead from as before.
	Stale []service.StaleFlows
}

// BrokenTable is a table that cannot be repaired in place, and why.
type BrokenTable struct {
	Family service.Family
	Reason string
}

// Empty reports whether there is nothing to write. There may be clients to forget.
func (d *Delta) Empty() bool { return d.Size()+len(d.StaleChains)+len(d.StaleSets) == 0 }

// Size returns the number of objects that the transaction names.
func (d *Delta) Size() int {
	return len(d.Reset) + len(d.Tables) + len(d.Sets) + len(d.Chains) + len(d.Delete) + len(d.Add)
}

// Changes returns the difference between what is desired now and what was when
// Done was last called.
func (r *Ruleset) Changes() *Delta {
	d := &Delta{}
	for s := range r.changes.shapes {
		d.Chains = append(d.Chains, s.shape.chain(s.family, r.config))
	}
	for f := range r.changes.affinity {
		d.Chains = append(d.Chains, stickyBaseChains(f)...)
	}
	for f, before := range r.changes.entries {
		after := r.owners[f].entry
		d.entry(before, after)
		if staleFlows(f, before, after) {
			d.Stale = append(d.Stale, stale(f, after))
		}
	}
	for a, was := range r.changes.clusters {
		d.addr(nftables.ClusterIPs, a, 1, was, r.clusters[a] > 0)
	}
	for a, was := range r.changes.hairpins {
		d.addr(nftables.Hairpin, a, 2, was, r.hairpins[a] > 0)
	}
	for key, before := range r.changes.stickies {
		var after *Sticky
		if s, ok := r.stickies[key]; ok {
			after = &s
		}
		d.stickyDelta(before, after, r.config)
	}
	d.sort()
	return d
}

// Done says that the kernel holds what is desired.
func (r *Ruleset) Done() { r.changes.reset() }

// entry adds what turns the elements of one entry into those of another of the same
// frontend. Either may be nil.
func (d *Delta) entry(before, after *Entry) {
	var none Entry
	var had, wanted []nftables.Element
	if before == nil {
		before = &none
	} else {
		had = before.appendDispatch(nil)
	}
	if after == nil {
		after = &none
	} else {
		wanted = after.appendDispatch(nil)
	}
	if !slices.Equal(had, wanted) {
		d.elements(had, wanted)
	}
	f := after.Frontend
	if after == &none {
		f = before.Frontend
	}
	d.slots(nftables.Endpoints, f, before.Backends, after.Backends)
	d.slots(nftables.LocalEndpoints, f, before.Locals, after.Locals)
}

// elements adds what turns the elements before into those after.
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

// slots adds what turns the slots before into those after. There may be thousands, of
// which few differ: elements are made of these only.
func (d *Delta) slots(k nftables.SetKind, f service.Frontend, before, after []service.Backend) {
	for slot, b := range before {
		if slot >= len(after) || after[slot] != b {
			d.Delete = append(d.Delete, nftables.SlotElement(k, f, slot, b))
		}
	}
	for slot, b := range after {
		if slot >= len(before) || before[slot] != b {
			d.Add = append(d.Add, nftables.SlotElement(k, f, slot, b))
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

// sort puts the Delta into an order that depends on its content only.
func (d *Delta) sort() {
	byID := func(a, b nftables.Element) int { return a.ElementID.Compare(b.ElementID) }
	slices.SortFunc(d.Delete, byID)
	slices.SortFunc(d.Add, byID)
	slices.SortFunc(d.Chains, nftables.Chain.Compare)
	slices.SortFunc(d.StaleChains, nftables.Chain.Compare)
	slices.SortFunc(d.Sets, nftables.Set.Compare)
	slices.SortFunc(d.StaleSets, nftables.Set.Compare)
	slices.SortFunc(d.ExpireClients, Sticky.compare)
	slices.SortFunc(d.Stale, func(a, b service.StaleFlows) int { return a.Frontend.Compare(b.Frontend) })
}

// changes remembers, for all that was touched since Done, how it was then.
type changes struct {
	entries  map[service.Frontend]*Entry
	clusters map[netip.Addr]bool
	hairpins map[netip.Addr]bool
	stickies map[string]*Sticky
	shapes   map[tableShape]struct{}     // that have no chain yet
	affinity map[service.Family]struct{} // tables without stickyBaseChains yet
}

func (c *changes) reset() {
	*c = changes{
		entries:  map[service.Frontend]*Entry{},
		clusters: map[netip.Addr]bool{},
		hairpins: map[netip.Addr]bool{},
		stickies: map[string]*Sticky{},
		shapes:   map[tableShape]struct{}{},
		affinity: map[service.Family]struct{}{},
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

func (c *changes) sticky(key string, in map[string]Sticky) {
	if _, ok := c.stickies[key]; ok {
		return
	}
	c.stickies[key] = nil
	if s, ok := in[key]; ok {
		c.stickies[key] = &s
	}
}
