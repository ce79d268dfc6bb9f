package rules_test

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/nftproxy/nftproxy/internal/fakekernel"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// damage does to the tables what another process could do to them.
func (g generator) damage(tables fakekernel.Tables) {
	for _, f := range service.Families() {
		t := tables[f]
		if t == nil {
			continue
		}
		if g.chance(10) {
			delete(tables, f)
			continue
		}
		if g.chance(10) { // the table cannot be repaired
			s := t.Sets[nftables.Hairpin.String()]
			s.ID.Kind = nftables.ClusterIPs
			t.Sets[s.Name] = s
		}
		g.damageElements(f, t)
		g.damageChains(f, t)
		g.damageSets(f, t)
	}
}

// chainsOf returns the table's chains, sorted: the same seed does the same damage.
func chainsOf(t *fakekernel.Table) []nftables.Chain {
	return slices.SortedFunc(maps.Values(t.Chains), nftables.Chain.Compare)
}

func (g generator) damageElements(f service.Family, t *fakekernel.Table) {
	regular := slices.DeleteFunc(chainsOf(t), func(c nftables.Chain) bool { return c.Hook != nil })
	sorted := slices.SortedFunc(maps.Values(t.Elements),
		func(a, b nftables.Element) int { return a.Compare(b.ElementID) })
	for _, e := range sorted {
		switch g.IntN(10) {
		case 0:
			delete(t.Elements, e.ElementID)
		case 1:
			if e.Set.Schema().Verdict && len(regular) > 0 {
				e.Chain = pickOne(g, regular...).Name
				t.Elements[e.ElementID] = e
			}
		case 2:
			e.Comment += "x"
			t.Elements[e.ElementID] = e
		case 3:
			if e.Set.DataSize() > 0 {
				e.Data[g.IntN(4)]++
				t.Elements[e.ElementID] = e
			}
		}
	}
	for range g.IntN(6) {
		e := g.foreignElement(f, regular)
		if has(t.Sets, e.Set.Kind.String()) && (e.Chain == "" || has(t.Chains, e.Chain)) {
			k := kernelWith(fakekernel.Tables{f: t})
			_ = k.Apply(&rules.Delta{Add: []nftables.Element{e}}) // which refuses duplicates and overlaps
			t.Elements = k.Tables()[f].Elements
		}
	}
}

// foreignElement returns an element that another process could add.
func (g generator) foreignElement(f service.Family, chains []nftables.Chain) nftables.Element {
	addr, bits := netip.AddrFrom4([4]byte{10, byte(g.IntN(4)), 0, byte(g.IntN(4))}), g.IntN(33)
	if f == service.IPv6 {
		addr, bits = netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(g.IntN(9))}), g.IntN(129)
	}
	prefix, _ := addr.Prefix(bits)
	front := service.Frontend{
		Addr:     addr,
		Protocol: pickOne(g, service.TCP, service.UDP, service.Protocol(47)),
		Port:     uint16(g.IntN(3)),
	}
	backend, slot, number := netip.AddrPortFrom(addr, 1), pickOne(g, 0, 1, 7, 65535), g.number()
	switch k := pickOne(g, nftables.SetKinds()...); k {
	case nftables.Services:
		return nftables.ServiceElement(front, number, "")
	case nftables.Shapes:
		if len(chains) > 0 {
			return nftables.ShapeElement(f, number, pickOne(g, chains...).Name)
		}
	case nftables.Endpoints, nftables.LocalEndpoints:
		return nftables.SlotElement(k, front, slot, backend)
	case nftables.StickySlots, nftables.StickyLocalSlots:
		return nftables.StickySlotElement(k, front, slot, number)
	case nftables.StickyBackends, nftables.StickyLocalBackends:
		return nftables.StickyBackendElement(k, front, number, backend)
	case nftables.ServiceCIDRs, nftables.PodCIDRs:
		return nftables.PrefixElement(k, prefix)
	case nftables.AllowedSources:
		return nftables.SourceElement(front, prefix)
	case nftables.Firewalled:
		return nftables.FrontendElement(k, front)
	case nftables.Hairpin:
		return nftables.AddrElement(k, addr, 2)
	}
	return nftables.AddrElement(nftables.ClusterIPs, addr, 1)
}

// number returns the number of a shape or of a backend: one that nftproxy gives, or one out of its ranges.
func (g generator) number() nftables.Class {
	major := pickOne[uint16](g,
		0, 0x4a00, 0x4a00, 0x4a01, 0x4aff, 0x4b00, 0x4c00, 0x4e00, 0x4f00, 0x5001, 0xffff)
	return nftables.NewClass(major, pickOne[uint16](g, 0, 1, 2, 3, 0xffff))
}

func (g generator) damageChains(f service.Family, t *fakekernel.Table) {
	for _, c := range chainsOf(t) {
		switch g.IntN(12) {
		case 0: // a rule more
			c.Rules = append(slices.Clone(c.Rules), nftables.Rule{nftables.Drop{}})
			t.Chains[c.Name] = c
		case 1: // a rule less
			if len(c.Rules) > 0 {
				c.Rules = c.Rules[:len(c.Rules)-1]
				t.Chains[c.Name] = c
			}
		case 2: // with all that refers to it
			maps.DeleteFunc(t.Elements, func(_ nftables.ElementID, e nftables.Element) bool {
				return e.Chain == c.Name
			})
			dropRules(t, func(_, chain string) bool { return chain == c.Name })
			delete(t.Chains, c.Name)
		}
	}
	if g.chance(20) {
		t.Chains["foreign"] = nftables.Chain{Family: f, Name: "foreign",
			Rules: []nftables.Rule{{nftables.Reject{}}}}
	}
}

func (g generator) damageSets(f service.Family, t *fakekernel.Table) {
	sets := slices.SortedFunc(maps.Values(t.Sets), nftables.Set.Compare)
	for _, s := range sets {
		if g.chance(4) {
			dropRules(t, func(set, _ string) bool { return set == s.Name })
			maps.DeleteFunc(t.Elements, func(id nftables.ElementID, _ nftables.Element) bool {
				return id.Set.Kind.String() == s.Name
			})
			delete(t.Sets, s.Name)
		} else if g.chance(4) {
			s.Counter = !s.Counter
			t.Sets[s.Name] = s
		}
	}
	if g.chance(20) {
		name := "affinity-foreign"
		t.Sets[name] = nftables.Set{ID: nftables.SetID{Family: f, Kind: nftables.Affinity}, Name: name}
		t.Chains[name] = nftables.Chain{Family: f, Name: name,
			Rules: []nftables.Rule{{nftables.Remember{Map: name, Timeout: time.Hour}}}}
	}
}

// dropRules takes out the rules that use a set or a chain.
func dropRules(t *fakekernel.Table, uses func(set, chain string) bool) {
	for name, c := range t.Chains {
		c.Rules = slices.DeleteFunc(slices.Clone(c.Rules), func(r nftables.Rule) bool {
			return slices.ContainsFunc(r, func(s nftables.Statement) bool { return uses(nftables.Uses(s)) })
		})
		t.Chains[name] = c
	}
}

func has[V any](in map[string]V, name string) bool { _, found := in[name]; return found }
