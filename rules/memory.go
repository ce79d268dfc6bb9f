package rules

import (
	"cmp"
	"reflect"
	"slices"
)

// stickyKey names a Sticky in the Ruleset.
func stickyKey(s Sticky) string { return s.Family.String() + " " + s.DispatchChain() }

func (s Sticky) compare(t Sticky) int { return cmp.Compare(stickyKey(s), stickyKey(t)) }

// putSticky adds the chains and maps of a sticky ServicePort.
func (r *Ruleset) putSticky(s Sticky) {
	key := stickyKey(s)
	r.changes.sticky(key, r.stickies)
	r.stickies[key] = s
	if !r.memory[s.Family] {
		r.memory[s.Family] = true
		r.changes.memory[s.Family] = struct{}{}
	}
}

func (r *Ruleset) dropSticky(s Sticky) {
	key := stickyKey(s)
	r.changes.sticky(key, r.stickies)
	delete(r.stickies, key)
}

// stickyDelta adds to the Delta what turns one state of a sticky ServicePort into the other.
// Chains are rewritten as a whole; what is no longer needed is stale.
func (d *Delta) stickyDelta(before, after *Sticky, c Config) {
	var chains, oldChains []Chain
	var sets, oldSets []Set
	if before != nil {
		oldChains, oldSets = before.chains(c), before.sets()
	}
	if after != nil {
		chains, sets = after.chains(c), after.sets()
	}
	for _, chain := range chains {
		if !slices.ContainsFunc(oldChains, func(o Chain) bool { return reflect.DeepEqual(o, chain) }) {
			d.Chains = append(d.Chains, chain)
		}
	}
	for _, set := range sets {
		if !slices.Contains(oldSets, set) {
			d.Sets = append(d.Sets, set)
		}
	}
	for _, o := range oldChains {
		if after == nil {
			d.StaleChains = append(d.StaleChains, Chain{Family: o.Family, Name: o.Name})
		}
	}
	for _, o := range oldSets {
		if !slices.Contains(sets, o) {
			d.StaleSets = append(d.StaleSets, o)
		}
	}
	if before != nil && after != nil && lost(before.Backends, after.Backends) {
		d.Forget = append(d.Forget, *after)
	}
}

// lost reports whether some of before are not in after; both are sorted.
func lost(before, after []Backend) bool {
	return slices.ContainsFunc(before, func(b Backend) bool {
		_, ok := slices.BinarySearchFunc(after, b, Backend.Compare)
		return !ok
	})
}
