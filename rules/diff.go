package rules

import (
	"iter"
	"maps"
	"slices"

	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Diff returns the changes that bring the tables in the kernel in line with the ruleset. It uses programmed
// up, and leaves in it only what goes: with 50,000 Services a copy of its elements would be 40 MB, at the
// moment when the process needs the most memory.
func Diff(desired *Ruleset, programmed Programmed) *Delta {
	desired.adoptNumbers(programmed)
	clear(desired.unused)
	desired.countsEndpoints = desired.fitsCounters()
	d := &Delta{}
	left := map[service.Family]map[nftables.ElementID]nftables.Element{}
	for _, f := range desired.config.Families {
		t := programmed[f]
		if t != nil && t.Broken != "" {
			d.Reset = append(d.Reset, BrokenTable{f, t.Broken})
			t = nil
		}
		if t == nil {
			d.Tables = append(d.Tables, f)
			t = NewTableState()
		}
		d.diffSets(desired.sets(f), t, f)
		d.diffChains(desired.Chains(f), t, f)
		left[f] = t.Elements
	}
	if len(programmed) == 0 {
		d.Add = make([]nftables.Element, 0, desired.size())
	}
	for e := range desired.elements() {
		in := left[e.Set.Family]
		old, ok := in[e.ElementID]
		delete(in, e.ElementID)
		d.element(old, ok && !d.replaces(e.Set), e)
	}
	var gone, unused []nftables.Element
	for _, in := range left {
		for _, e := range in {
			if e.Set.Kind == nftables.Shapes && isShapeChain(e.Chain) && !d.replaces(e.Set) {
				unused = append(unused, e)
			} else {
				gone = append(gone, e)
			}
		}
	}
	slices.SortFunc(gone, compareElements)
	d.Stale = desired.allStale(gone)
	d.Delete = append(d.Delete, slices.DeleteFunc(gone, func(e nftables.Element) bool {
		return d.replaces(e.Set) // they go with the set
	})...)
	if d.Size()+len(d.StaleSets) == 0 && len(unused) <= MaxUnused {
		// Shapes that no frontend has any more do no harm: a few of them alone are no reason to write, so
		// that a restart in an unchanged cluster writes nothing.
		d.StaleChains = slices.DeleteFunc(d.StaleChains, func(c nftables.Chain) bool {
			return isShapeChain(c.Name)
		})
		for _, e := range unused {
			desired.unused[e.ElementID] = e
		}
		return d
	}
	d.Delete, d.unused = append(d.Delete, unused...), len(unused)
	slices.SortFunc(d.Delete, compareElements)
	return d
}

func (d *Delta) diffSets(desired []nftables.Set, t *TableState, f service.Family) {
	wanted := map[string]bool{}
	for _, s := range desired {
		wanted[s.Name] = true
		counter, ok := t.Sets[s.Name]
		switch {
		case !ok:
			d.Sets = append(d.Sets, s)
		case counter != s.Counter:
			d.Replace = append(d.Replace, s)
			for name := range t.Chains {
				t.Chains[name] = false
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.Sets)) {
		if !wanted[name] {
			d.StaleSets = append(d.StaleSets, nftables.Set{ID: nftables.SetID{Family: f}, Name: name})
		}
	}
}

// replaces reports whether the Delta replaces the set with all its elements.
func (d *Delta) replaces(id nftables.SetID) bool {
	return slices.ContainsFunc(d.Replace, func(s nftables.Set) bool { return s.ID == id })
}

func (d *Delta) diffChains(desired []nftables.Chain, t *TableState, f service.Family) {
	wanted := map[string]bool{}
	for _, c := range desired {
		wanted[c.Name] = true
		if !t.Chains[c.Name] {
			d.Chains = append(d.Chains, c)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.Chains)) {
		if !wanted[name] {
			d.StaleChains = append(d.StaleChains, nftables.Chain{Family: f, Name: name})
		}
	}
}

// allStale returns all frontends that may have stale flows, as the state of the past is not known: those that
// are desired, and those that are gone.
func (r *Ruleset) allStale(gone []nftables.Element) []service.StaleFlows {
	var out []service.StaleFlows
	for f, c := range r.owners {
		if f.Protocol != service.TCP {
			out = append(out, c.entry.stale())
		}
	}
	for _, e := range gone {
		if e.Set.Kind != nftables.Services {
			continue
		}
		f := e.KeyValues().Frontend()
		if _, held := r.owners[f]; !held && f.Protocol != service.TCP {
			out = append(out, staleGone(f, e.Comment))
		}
	}
	slices.SortFunc(out, func(a, b service.StaleFlows) int { return a.Frontend.Compare(b.Frontend) })
	return out
}

// Chains returns the desired chains of one table.
func (r *Ruleset) Chains(f service.Family) []nftables.Chain {
	chains := baseChains(f, r.config)
	for s := range r.shapes {
		if s.family == f {
			chains = append(chains, s.chain(r.config))
		}
	}
	slices.SortFunc(chains, nftables.Chain.Compare)
	return chains
}

// sets returns the sets and maps of one table.
func (r *Ruleset) sets(f service.Family) []nftables.Set {
	var sets []nftables.Set
	for _, k := range nftables.SetKinds() {
		id := nftables.SetID{Family: f, Kind: k}
		sets = append(sets, nftables.Set{ID: id, Name: k.String(), Counter: r.counted(k)})
	}
	return sets
}

// size returns the number of desired elements.
func (r *Ruleset) size() int {
	n := len(r.clusters) + len(r.hairpins)
	for s := range r.shapes {
		if !s.shape.isPart() {
			n++
		}
	}
	for _, f := range r.config.Families {
		n += len(prefixesOf(f, r.config.ServiceCIDRs)) + len(prefixesOf(f, r.config.PodTraffic.CIDRs))
	}
	for _, c := range r.owners {
		n += c.entry.size()
	}
	return n
}

// elements yields all desired elements, in an order that depends only on the content.
func (r *Ruleset) elements() iter.Seq[nftables.Element] {
	return func(yield func(nftables.Element) bool) {
		buf := r.common()
		for a := range r.clusters {
			buf = append(buf, nftables.AddrElement(nftables.ClusterIPs, a, 1))
		}
		for a := range r.hairpins {
			buf = append(buf, nftables.AddrElement(nftables.Hairpin, a, 2))
		}
		slices.SortFunc(buf, compareElements)
		for _, e := range buf {
			if !yield(e) {
				return
			}
		}
		for _, name := range r.Names() {
			c := r.services[name]
			for i := range c.Entries {
				if r.owners[c.Entries[i].Frontend].by != c {
					continue
				}
				buf = c.Entries[i].appendElements(buf[:0], r.number(c.Entries[i].tableShape()))
				for _, e := range buf {
					if !yield(e) {
						return
					}
				}
			}
		}
	}
}

// common returns the desired elements that do not grow with the Services: ranges and shapes.
func (r *Ruleset) common() []nftables.Element {
	out := make([]nftables.Element, 0, len(r.clusters)+len(r.hairpins))
	for _, f := range r.config.Families {
		for _, p := range prefixesOf(f, r.config.ServiceCIDRs) {
			out = append(out, nftables.PrefixElement(nftables.ServiceCIDRs, p))
		}
		for _, p := range prefixesOf(f, r.config.PodTraffic.CIDRs) {
			out = append(out, nftables.PrefixElement(nftables.PodCIDRs, p))
		}
	}
	for _, s := range slices.SortedFunc(maps.Keys(r.shapes), tableShape.compare) {
		if !s.shape.isPart() {
			out = append(out, nftables.ShapeElement(s.family, r.number(s), s.chainName()))
		}
	}
	return out
}
