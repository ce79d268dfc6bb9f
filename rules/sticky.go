package rules

import (
	"fmt"
	"slices"
	"time"

	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// MaxStickyPorts is how many different target ports the endpoints of one sticky
// ServicePort can have; clients of endpoints on further ports are not remembered.
const MaxStickyPorts = 8

// Sticky is the memory of a ServicePort with sessionAffinity ClientIP, for one
// family and kind of frontend: which client has which endpoint.
//
// It is a map per target port from client address to endpoint address, as nft
// 1.0.6 aborts on an update statement whose key or data is longer than 16 bytes;
// the port stands in the rule.
type Sticky struct {
	Family   service.Family
	Kind     ShapeKind
	Port     string // namespace/name/protocol/port of the ServicePort
	Protocol service.Protocol
	Timeout  time.Duration
	Targets  []uint16          // target ports, sorted
	Backends []service.Backend // that a client may be remembered with, sorted
}

func (s Sticky) id() string { return s.Kind.String() + "/" + s.Port }

// MapName returns the name of the map for clients of endpoints on the target port.
func (s Sticky) MapName(target uint16) string { return fmt.Sprintf("affinity-%s/%d", s.id(), target) }

// DispatchChain returns the name of the chain that frontends go to.
func (s Sticky) DispatchChain() string { return "sticky-" + s.id() }

// RememberChain returns the name of the chain that remembers a client.
func (s Sticky) RememberChain() string { return "remember-" + s.id() }

// chains returns the chain that sends a known client to its endpoint, others to
// the frontend's shape, and the chain that remembers where a client was sent.
func (s Sticky) chains(c Config) []nftables.Chain {
	dispatch := nftables.Chain{Family: s.Family, Name: s.DispatchChain(), Rules: markRules(s.Kind, s.Family, c)}
	remember := nftables.Chain{Family: s.Family, Name: s.RememberChain()}
	for _, target := range s.Targets {
		dispatch.Rules = append(dispatch.Rules, nftables.Rule{
			nftables.IsProtocol{Protocol: s.Protocol}, nftables.DNAT{Key: []nftables.Field{nftables.SrcAddr}, Map: s.MapName(target), Port: target}})
		remember.Rules = append(remember.Rules, nftables.Rule{
			nftables.IsPort{Protocol: s.Protocol, Port: target}, nftables.Remember{Map: s.MapName(target), Timeout: s.Timeout}})
	}
	dispatch.Rules = append(dispatch.Rules, nftables.Rule{nftables.Dispatch{Key: nftables.FrontendKey(), Map: nftables.StickyServices.String()}})
	return []nftables.Chain{dispatch, remember}
}

// sets returns the maps of the memory.
func (s Sticky) sets() []nftables.Set {
	var sets []nftables.Set
	for _, target := range s.Targets {
		sets = append(sets, nftables.Set{ID: nftables.SetID{Family: s.Family, Kind: nftables.Affinity}, Name: s.MapName(target)})
	}
	return sets
}

// known reports whether the table has a map of the memory.
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
