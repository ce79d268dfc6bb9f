package rules

import (
	"net/netip"
	"slices"
)

// outermost returns the prefixes sorted and without those that another one contains.
func outermost(prefixes []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	for _, p := range prefixes {
		// Prefixes are nested or disjoint, and one that contains p comes before it.
		if n := len(out); n == 0 || !out[n-1].Contains(p.Addr()) {
			out = append(out, p)
		}
	}
	return out
}
