package rules

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// MaxStickyPorts is the largest number of different target ports of a port with session affinity. Clients of
// endpoints on further target ports are not remembered.
const MaxStickyPorts = 8

// Sticky is the session affinity (ClientIP) of one port of a Service, for one family and kind of frontend:
// the kernel keeps which client has which endpoint.
//
// It is a map per target port from client address to endpoint address, and the port stands in the rule,
// because nft 1.0.6 aborts on an update statement whose key or data is longer than 16 bytes.
type Sticky struct {
	Family   service.Family
	Kind     ShapeKind
	Port     string // namespace/name/protocol/port
	Protocol service.Protocol
	Timeout  time.Duration
	Targets  []uint16          // target ports, sorted
	Backends []service.Backend // that clients may have, sorted
}

func (s Sticky) id() string { return s.Kind.String() + "/" + s.Port }

// MapName returns the name of the map for clients of endpoints on the target port.
func (s Sticky) MapName(target uint16) string { return fmt.Sprintf("affinity-%s/%d", s.id(), target) }

// DispatchChain returns the name of the chain to which the map services leads.
func (s Sticky) DispatchChain() string { return "sticky-" + s.id() }

// RememberChain returns the name of the chain that remembers a client.
func (s Sticky) RememberChain() string { return "remember-" + s.id() }

// chains returns the chain that sends a known client to its endpoint and others to the frontend's shape, and
// the chain that remembers the endpoint of a client.
func (s Sticky) chains(c Config) []nftables.Chain {
	dispatch := nftables.Chain{Family: s.Family, Name: s.DispatchChain()}
	dispatch.Rules = markRules(s.Kind, s.Family, c)
	remember := nftables.Chain{Family: s.Family, Name: s.RememberChain()}
	client := []nftables.Field{nftables.SrcAddr}
	for _, target := range s.Targets {
		dispatch.Rules = append(dispatch.Rules, nftables.Rule{
			nftables.IsProtocol{Protocol: s.Protocol},
			nftables.DNAT{Key: client, Map: s.MapName(target), Port: target},
		})
		remember.Rules = append(remember.Rules, nftables.Rule{
			nftables.IsPort{Protocol: s.Protocol, Port: target},
			nftables.Remember{Map: s.MapName(target), Timeout: s.Timeout},
		})
	}
	dispatch.Rules = append(dispatch.Rules, nftables.Rule{
		nftables.Dispatch{Key: nftables.FrontendKey(), Map: nftables.StickyServices.String()},
	})
	return []nftables.Chain{dispatch, remember}
}

// sets returns the maps from clients to endpoints.
func (s Sticky) sets() []nftables.Set {
	var sets []nftables.Set
	for _, target := range s.Targets {
		id := nftables.SetID{Family: s.Family, Kind: nftables.Affinity}
		sets = append(sets, nftables.Set{ID: id, Name: s.MapName(target)})
	}
	return sets
}

// known reports whether the table has one of the maps.
func (s Sticky) known(t *TableState) bool {
	return slices.ContainsFunc(s.sets(), func(set nftables.Set) bool {
		_, ok := t.Sets[set.Name]
		return ok
	})
}

// targets returns the target ports of the backends, sorted, at most MaxStickyPorts.
func targets(backends []service.Backend) (ports []uint16, all bool) {
	for _, b := range backends {
		if i, ok := slices.BinarySearch(ports, b.Port()); !ok {
			ports = slices.Insert(ports, i, b.Port())
		}
	}
	if len(ports) > MaxStickyPorts {
		return ports[:MaxStickyPorts], false
	}
	return ports, true
}

// stickyKey returns the key of a Sticky in the Ruleset.
func stickyKey(s Sticky) string { return s.Family.String() + " " + s.DispatchChain() }

func (s Sticky) compare(t Sticky) int { return cmp.Compare(stickyKey(s), stickyKey(t)) }

// putSticky adds the chains and maps of a Sticky.
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

// stickyDelta adds the changes between two states of a Sticky, each of which may be nil. It rewrites chains
// as a whole; chains and sets that are no longer needed become stale.
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
		same := func(o nftables.Chain) bool { return reflect.DeepEqual(o, chain) }
		if !slices.ContainsFunc(oldChains, same) {
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
