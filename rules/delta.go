package rules

import (
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
	Sets   []nftables.Set   // to create
	Chains []nftables.Chain // to create or rewrite
	Delete []nftables.Element
	Add    []nftables.Element

	// StaleChains and StaleSets are unused after the transaction. A transaction of their own deletes them,
	// which may fail without harm: before Linux 6.2 a chain stays in use for a moment after the deletion of
	// the last element that leads to it.
	StaleChains []nftables.Chain
	StaleSets   []nftables.Set

	// ExpireClients are session affinities that may have clients of removed endpoints. The kernel adds
	// elements to their maps, so those of other endpoints than Backends are deleted after the commit.
	ExpireClients []Sticky

	// Stale are frontends of UDP and SCTP whose established flows may lead to endpoints that they no
	// longer have. Those that are Gone have no Keep: the endpoints of their Service may live on.
	Stale []service.StaleFlows
}

// BrokenTable is a table that cannot be repaired in place, and why.
type BrokenTable struct {
	Family service.Family
	Reason string
}

// Empty reports whether there is nothing to write. There may be clients to expire and stale flows.
func (d *Delta) Empty() bool { return d.Size()+len(d.StaleChains)+len(d.StaleSets) == 0 }

// Size returns the number of objects in the transaction.
func (d *Delta) Size() int {
	return len(d.Reset) + len(d.Tables) + len(d.Sets) + len(d.Chains) + len(d.Delete) + len(d.Add)
}

// Changes returns the difference between the ruleset and its state at the last call of Done.
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
		d.stale(f, before, after)
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

// Done says that the kernel holds the ruleset as it is now.
func (r *Ruleset) Done() { r.changes.reset() }

// entry adds the changes between two entries of a frontend, each of which may be nil.
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

// element adds the changes that replace an element, if found, by e.
func (d *Delta) element(old nftables.Element, found bool, e nftables.Element) {
	if found && old == e {
		return
	}
	if found {
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
	slices.SortFunc(d.Sets, nftables.Set.Compare)
	slices.SortFunc(d.StaleSets, nftables.Set.Compare)
	slices.SortFunc(d.ExpireClients, Sticky.compare)
	slices.SortFunc(d.Stale, func(a, b service.StaleFlows) int { return a.Frontend.Compare(b.Frontend) })
}

func compareElements(a, b nftables.Element) int { return a.ElementID.Compare(b.ElementID) }

// changes has the state at the last call of Done of everything that changed since then.
type changes struct {
	entries  map[service.Frontend]*Entry
	clusters map[netip.Addr]bool
	hairpins map[netip.Addr]bool
	stickies map[string]*Sticky
	shapes   map[tableShape]struct{}     // without a chain until now
	affinity map[service.Family]struct{} // tables without stickyBaseChains until now
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
