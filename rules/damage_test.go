package rules

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// damage does to the kernel's state what someone else could do to it.
func (g generator) damage(m model) {
	for _, f := range service.Families() {
		t := m[f]
		if t == nil {
			continue
		}
		if g.chance(10) {
			delete(m, f)
			continue
		}
		if g.chance(10) {
			t.broken = "a set of another layout"
		}
		g.damageElements(f, t)
		g.damageChains(f, t)
		g.damageSets(f, t)
	}
}

// chainsOf returns the table's chains, sorted: the same seed does the same damage.
func chainsOf(t *modelTable) []nftables.Chain {
	return slices.SortedFunc(maps.Values(t.chains), nftables.Chain.Compare)
}

func (g generator) damageElements(f service.Family, t *modelTable) {
	regular := slices.DeleteFunc(chainsOf(t), func(c nftables.Chain) bool { return c.Hook != nil })
	sorted := slices.SortedFunc(maps.Values(t.elements), func(a, b nftables.Element) int { return a.Compare(b.ElementID) })
	for _, e := range sorted {
		switch g.IntN(10) {
		case 0:
			delete(t.elements, e.ElementID)
		case 1:
			if e.Set.Kind.Schema().Verdict && len(regular) > 0 {
				e.Chain = pickOne(g, regular...).Name
				t.elements[e.ElementID] = e
			}
		case 2:
			e.Comment += "x"
			t.elements[e.ElementID] = e
		case 3:
			if e.Set.DataSize() > 0 {
				e.Data[g.IntN(4)]++
				t.elements[e.ElementID] = e
			}
		}
	}
	for range g.IntN(6) {
		e := g.foreignElement(f, regular)
		if has(t.sets, e.Set.Kind.String()) && (e.Chain == "" || has(t.chains, e.Chain)) {
			_ = (model{f: t}).addElement(e) // what is there or overlaps is refused, as in the kernel
		}
	}
}

// foreignElement is an element that someone else could add.
func (g generator) foreignElement(f service.Family, chains []nftables.Chain) nftables.Element {
	addr, bits := netip.AddrFrom4([4]byte{10, byte(g.IntN(4)), 0, byte(g.IntN(4))}), g.IntN(33)
	if f == service.IPv6 {
		addr, bits = netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(g.IntN(9))}), g.IntN(129)
	}
	prefix, _ := addr.Prefix(bits)
	front := service.Frontend{Addr: addr, Protocol: pickOne(g, service.TCP, service.UDP, service.Protocol(47)), Port: uint16(g.IntN(3))}
	var chain string
	if len(chains) > 0 {
		chain = pickOne(g, chains...).Name
	}
	switch k := pickOne(g, nftables.FixedSets()...); k {
	case nftables.Services, nftables.StickyServices, nftables.RememberMap:
		if chain == "" {
			return nftables.AddrElement(nftables.ClusterIPs, addr, 1)
		}
		return nftables.FrontendElement(k, front, chain, "")
	case nftables.Endpoints, nftables.LocalEndpoints:
		return nftables.SlotElement(k, front, pickOne(g, 0, 1, 7, 65535), netip.AddrPortFrom(addr, 1))
	case nftables.ServiceCIDRs, nftables.PodCIDRs:
		return nftables.PrefixElement(k, prefix)
	case nftables.AllowedSources:
		return nftables.SourceElement(front, prefix)
	case nftables.Firewalled:
		return nftables.FrontendElement(k, front, "", "")
	case nftables.Hairpin:
		return nftables.AddrElement(k, addr, 2)
	default:
		return nftables.AddrElement(nftables.ClusterIPs, addr, 1)
	}
}

func (g generator) damageChains(f service.Family, t *modelTable) {
	for _, c := range chainsOf(t) {
		switch g.IntN(12) {
		case 0: // a rule more
			c.Rules = append(slices.Clone(c.Rules), nftables.Rule{nftables.Drop{}})
			t.chains[c.Name] = c
		case 1: // a rule less
			if len(c.Rules) > 0 {
				c.Rules = c.Rules[:len(c.Rules)-1]
				t.chains[c.Name] = c
			}
		case 2: // with all that refers to it
			maps.DeleteFunc(t.elements, func(_ nftables.ElementID, e nftables.Element) bool { return e.Chain == c.Name })
			t.dropRules(func(s nftables.Statement) bool { return s == nftables.Statement(nftables.Jump{Chain: c.Name}) })
			delete(t.chains, c.Name)
		}
	}
	if g.chance(20) {
		t.chains["foreign"] = nftables.Chain{Family: f, Name: "foreign", Rules: []nftables.Rule{{nftables.Reject{}}}}
	}
}

func (g generator) damageSets(f service.Family, t *modelTable) {
	sets := slices.SortedFunc(maps.Values(t.sets), nftables.Set.Compare)
	for _, s := range sets {
		if g.chance(4) {
			t.dropRules(func(st nftables.Statement) bool { used, _, _ := lookup(st); return used == s.Name })
			maps.DeleteFunc(t.elements, func(id nftables.ElementID, _ nftables.Element) bool { return id.Set.Kind.String() == s.Name })
			delete(t.sets, s.Name)
		}
	}
	if g.chance(20) {
		name := "affinity-foreign"
		t.sets[name] = nftables.Set{ID: nftables.SetID{Family: f, Kind: nftables.Affinity}, Name: name}
		t.chains[name] = nftables.Chain{Family: f, Name: name, Rules: []nftables.Rule{{nftables.Remember{Map: name, Timeout: time.Hour}}}}
	}
}

// dropRules takes out the rules with a statement that matches.
func (t *modelTable) dropRules(match func(nftables.Statement) bool) {
	for name, c := range t.chains {
		c.Rules = slices.DeleteFunc(slices.Clone(c.Rules), func(r nftables.Rule) bool { return slices.ContainsFunc(r, match) })
		t.chains[name] = c
	}
}

// describe writes a Programmed in a fixed order, for messages.
func describe(p Programmed) string {
	var out string
	for _, f := range service.Families() {
		if t := p[f]; t != nil {
			out += fmt.Sprintf("table %s broken %q, %d chains, %d sets, %d elements\n", f, t.Broken, len(t.Chains), len(t.Sets), len(t.Elements))
		}
	}
	return cmp.Or(out, "nothing")
}
