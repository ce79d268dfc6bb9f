package rules

import (
	"net/netip"
	"slices"
)

// insertPrefix puts p into the sorted list, which holds no prefix that contains
// another one, and keeps it so.
func insertPrefix(list []netip.Prefix, p netip.Prefix) []netip.Prefix {
	for _, q := range list {
		if contains(q, p) {
			return list
		}
	}
	list = slices.DeleteFunc(list, func(q netip.Prefix) bool { return contains(p, q) })
	i, _ := slices.BinarySearchFunc(list, p, netip.Prefix.Compare)
	return slices.Insert(list, i, p)
}

// contains reports whether all addresses of q, which is masked, are in p.
func contains(p, q netip.Prefix) bool {
	return p.Bits() <= q.Bits() && p.Contains(q.Addr())
}
