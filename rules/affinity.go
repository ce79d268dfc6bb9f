package rules

import (
	"cmp"
	"reflect"
	"slices"

	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// stickyKey names a Sticky in the Ruleset.
func stickyKey(s Sticky) string { return s.Family.String() + " " + s.DispatchChain() }

func (s Sticky) compare(t Sticky) int { return cmp.Compare(stickyKey(s), stickyKey(t)) }

// putSticky adds the chains and maps of a sticky ServicePort.
func (r *Ruleset) putSticky(s Sticky) {
	key := stickyKey(s)
	r.changes.sticky(key, r.stickies)
	r.stickies[key] = s
	if !r.affinity[s.Family] {
		r.affinity[s.Family] = true
		r.changes.affinity[s.Family] = struct{}{}
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
	var chains, oldChains []nftables.Chain
	var sets, oldSets []nftables.Set
	if before != nil {
		oldChains, oldSets = before.chains(c), before.sets()
	}
	if after != nil {
		chains, sets = after.chains(c), after.sets()
	}
	for _, chain := range chains {
		if !slices.ContainsFunc(oldChains, func(o nftables.Chain) bool { return reflect.DeepEqual(o, chain) }) {
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
			d.StaleChains = append(d.StaleChains, nftables.Chain{Family: o.Family, Name: o.Name})
		}
	}
	for _, o := range oldSets {
		if !slices.Contains(sets, o) {
			d.StaleSets = append(d.StaleSets, o)
		}
	}
	if before != nil && after != nil && lost(before.Backends, after.Backends) {
		d.ExpireClients = append(d.ExpireClients, *after)
	}
}

// lost reports whether some of before are not in after; both are sorted.
func lost(before, after []service.Backend) bool {
	return slices.ContainsFunc(before, func(b service.Backend) bool {
		_, ok := slices.BinarySearchFunc(after, b, service.Backend.Compare)
		return !ok
	})
}
