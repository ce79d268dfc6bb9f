package rules

import (
	"iter"
	"net/netip"

	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// The tests are in package rules_test, because the fake kernel that they use imports this package. This file
// has what they need besides the exported identifiers.

// Elements yields all desired elements.
func (r *Ruleset) Elements() iter.Seq[nftables.Element] { return r.elements() }

// Sets returns the desired sets of one table.
func (r *Ruleset) Sets(f service.Family) []nftables.Set { return r.sets(f) }

// Size returns how many elements are desired.
func (r *Ruleset) Size() int { return r.size() }

// Owners returns which Service has each frontend.
func (r *Ruleset) Owners() map[service.Frontend]service.Name {
	owners := map[service.Frontend]service.Name{}
	for f, c := range r.owners {
		owners[f] = c.by.Name
	}
	return owners
}

// Reachable returns the rules that packets can reach from a chain.
func (r *Ruleset) Reachable(from nftables.Chain) []nftables.Rule { return r.reachable(from) }

// Chain returns the chain of a shape.
func (s Shape) Chain(f service.Family, c Config) nftables.Chain { return s.chain(f, c) }

// Number returns the number of a shape without session affinity.
func (s Shape) Number() (n nftables.Class, ok bool) { return s.number() }

// StickyRange returns the numbers that shapes with session affinity get: those from first on, below end.
func StickyRange() (first, end nftables.Class) {
	return nftables.NewClass(majorAssigned, 1), nftables.NewClass(majorAssigned+0x100, 0)
}

// AssignNumbers returns the numbers of the backends in slots, after a frontend held others.
func AssignNumbers(prev Held, slots []service.Backend) []nftables.Class {
	return assignNumbers(numbered{prev.Backends, prev.Numbers}, slots)
}

// IsShapeChain reports whether a chain of that name is a shape's.
func IsShapeChain(name string) bool { return isShapeChain(name) }

// Pick returns the backends that traffic goes to.
func Pick(all []service.Endpoint, f service.Family, node service.Node) (
	cluster, local []service.Backend, anywhere bool) {
	return pick(all, f, node)
}

// PrefixesOf returns the prefixes of a family.
func PrefixesOf(f service.Family, prefixes []netip.Prefix) []netip.Prefix {
	return prefixesOf(f, prefixes)
}
