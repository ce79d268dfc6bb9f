package rules

import (
	"net/netip"
	"slices"

	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Lookup answers for single chains and elements of the desired tables, as the kernel does for those that it
// has. It builds only what it is asked for. The Ruleset must not change while a Lookup is in use.
type Lookup struct {
	ruleset  *Ruleset
	chains   map[service.Family]map[string]nftables.Chain
	elements map[nftables.ElementID]nftables.Element
	built    map[service.Frontend]struct{} // frontends whose elements are in elements
}

// Lookup returns a Lookup of the ruleset.
func (r *Ruleset) Lookup() *Lookup {
	l := &Lookup{
		ruleset: r, chains: map[service.Family]map[string]nftables.Chain{},
		elements: map[nftables.ElementID]nftables.Element{}, built: map[service.Frontend]struct{}{},
	}
	for _, f := range r.config.Families {
		l.chains[f] = map[string]nftables.Chain{}
		for _, c := range r.Chains(f) {
			l.chains[f][c.Name] = c
		}
	}
	for _, e := range r.common() {
		l.elements[e.ElementID] = e
	}
	return l
}

// BaseChains returns the base chains of the table of the family.
func (l *Lookup) BaseChains(f service.Family) (base []nftables.Chain, err error) {
	for _, c := range l.chains[f] {
		if c.Hook != nil {
			base = append(base, c)
		}
	}
	slices.SortFunc(base, nftables.Chain.Compare)
	return base, nil
}

// Chain returns a chain, and false if the table does not have it.
func (l *Lookup) Chain(f service.Family, name string) (nftables.Chain, bool, error) {
	c, ok := l.chains[f][name]
	return c, ok, nil
}

// Element returns an element, and false if the table does not have it.
func (l *Lookup) Element(id nftables.ElementID) (nftables.Element, bool, error) {
	switch id.Set.Kind {
	case nftables.ClusterIPs, nftables.Hairpin:
		addr := id.KeyValues().Addrs[0]
		in, n := l.ruleset.clusters, 1
		if id.Set.Kind == nftables.Hairpin {
			in, n = l.ruleset.hairpins, 2
		}
		e := nftables.AddrElement(id.Set.Kind, addr, n)
		return e, in[addr] > 0 && e.ElementID == id, nil
	case nftables.Affinity:
		return nftables.Element{}, false, nil // the kernel fills it
	case nftables.Shapes, nftables.ServiceCIDRs, nftables.PodCIDRs:
	default:
		l.build(id.KeyValues().Frontend())
	}
	e, ok := l.elements[id]
	return e, ok, nil
}

// Frontend returns the elements of a frontend, without those that it shares with others.
func (l *Lookup) Frontend(f service.Frontend) []nftables.Element {
	c, ok := l.ruleset.owners[f]
	if !ok {
		return nil
	}
	return c.entry.appendElements(nil, l.ruleset.number(c.entry.tableShape()))
}

// build adds the elements of a frontend.
func (l *Lookup) build(f service.Frontend) {
	if _, done := l.built[f]; done {
		return
	}
	l.built[f] = struct{}{}
	for _, e := range l.Frontend(f) {
		l.elements[e.ElementID] = e
	}
}

// Entry returns the frontend of a Service, and false if no Service has it.
func (r *Ruleset) Entry(f service.Frontend) (Entry, service.Name, bool) {
	c, ok := r.owners[f]
	if !ok {
		return Entry{}, service.Name{}, false
	}
	return *c.entry, c.by.Name, true
}

// Wanted is a frontend that a Service wants, and the Service that has it.
type Wanted struct {
	Entry *Entry // not to be changed
	Owner service.Name
}

// Wanted returns the frontends that a Service wants in the families that are programmed, at most so many. It
// shares no state that changes, so that another goroutine can use it.
func (r *Ruleset) Wanted(name service.Name, most int) (list []Wanted) {
	c := r.services[name]
	if c == nil {
		return nil
	}
	for i := range c.Entries {
		owner, has := r.owners[c.Entries[i].Frontend]
		if len(list) == most {
			break
		}
		if has {
			list = append(list, Wanted{&c.Entries[i], owner.by.Name})
		}
	}
	return list
}

// Subset returns a Ruleset with some of the Services, and with the numbers that shapes have. It shares no
// state that changes, so that another goroutine can use it.
func (r *Ruleset) Subset(names ...service.Name) *Ruleset {
	s := NewRuleset(r.config)
	for _, name := range names {
		c := r.services[name]
		if c == nil {
			continue
		}
		for i := range c.Entries {
			shape := c.Entries[i].tableShape()
			if n, ok := r.numbers[shape]; ok {
				s.numbers[shape] = n
			}
		}
		s.Put(c)
	}
	return s
}

// Claims reports whether a Service claims a frontend at the address and port, with any protocol. Another
// Service may have it.
func (r *Ruleset) Claims(name service.Name, addr netip.Addr, port uint16) bool {
	c := r.services[name]
	return c != nil && slices.ContainsFunc(c.Entries, func(e Entry) bool {
		return e.Frontend.Port == port && (!addr.IsValid() || e.Frontend.Addr == addr)
	})
}

// Uses reports whether connections to the frontend can meet a chain: that of its shape, or one that does not
// depend on Services.
func (e *Entry) Uses(chain string) bool {
	return !isShapeChain(chain) || slices.ContainsFunc(e.tableShapes(), func(s tableShape) bool {
		return s.chainName() == chain
	})
}
