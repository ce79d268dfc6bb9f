package rules

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"

	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// model is what the kernel holds, as far as a Delta can tell. It takes a Delta
// as the kernel does, and refuses what the kernel would refuse.
type model map[service.Family]*modelTable

type modelTable struct {
	broken   string
	chains   map[string]nftables.Chain
	sets     map[string]nftables.Set
	elements map[nftables.ElementID]nftables.Element
}

func newModelTable() *modelTable {
	return &modelTable{chains: map[string]nftables.Chain{}, sets: map[string]nftables.Set{}, elements: map[nftables.ElementID]nftables.Element{}}
}

// modelOf returns the model of a kernel that holds what is desired and nothing else.
func modelOf(r *Ruleset) model {
	m := model{}
	for _, f := range r.config.Families {
		m[f] = newModelTable()
		for _, c := range r.Chains(f) {
			m[f].chains[c.Name] = c
		}
		for _, s := range r.sets(f) {
			m[f].sets[s.Name] = s
		}
	}
	for e := range r.elements() {
		if _, twice := m[e.Set.Family].elements[e.ElementID]; twice {
			panic(fmt.Sprintf("element is desired twice: %s", e))
		}
		m[e.Set.Family].elements[e.ElementID] = e
	}
	return m
}

// programmed is what a reader finds, who compares chains with the desired ones.
func (m model) programmed(desired *Ruleset) Programmed {
	p := Programmed{}
	for f, t := range m {
		read := NewTableState()
		read.Broken = t.broken
		want := map[string]nftables.Chain{}
		for _, c := range desired.Chains(f) {
			want[c.Name] = c
		}
		for name, c := range t.chains {
			read.Chains[name] = sameChain(c, want[name])
		}
		for name := range t.sets {
			read.Sets[name] = struct{}{}
		}
		maps.Copy(read.Elements, t.elements)
		p[f] = read
	}
	return p
}

func sameChain(a, b nftables.Chain) bool {
	return a.Family == b.Family && a.Name == b.Name && reflect.DeepEqual(a.Hook, b.Hook) &&
		slices.EqualFunc(a.Rules, b.Rules, func(r, s nftables.Rule) bool { return reflect.DeepEqual(r, s) })
}

// commit does the transaction of a Delta. After an error the model is of no use.
func (m model) commit(d *Delta) error {
	for _, broken := range d.Reset {
		f := broken.Family
		if m[f] == nil {
			return fmt.Errorf("delete table %s: ENOENT", f)
		}
		delete(m, f)
	}
	for _, f := range d.Tables {
		if m[f] != nil {
			return fmt.Errorf("add table %s: EEXIST", f)
		}
		m[f] = newModelTable()
	}
	for _, s := range d.Sets {
		if err := m.addSet(s); err != nil {
			return err
		}
	}
	if err := m.addChains(d.Chains); err != nil {
		return err
	}
	for _, e := range d.Delete {
		if t := m[e.Set.Family]; t == nil || t.elements[e.ElementID] != e {
			return fmt.Errorf("delete element %s { %s }: ENOENT", e.Set.Kind, e)
		}
		delete(m[e.Set.Family].elements, e.ElementID)
	}
	for _, e := range d.Add {
		if err := m.addElement(e); err != nil {
			return fmt.Errorf("add element %s { %s }: %w", e.Set.Kind, e, err)
		}
	}
	return nil
}

// clean does the transaction that comes after the commit of a Delta. Stale
// chains may refer to each other, so all lose their rules before the first goes.
func (m model) clean(d *Delta) error {
	for _, c := range d.StaleChains {
		if t := m[c.Family]; t != nil && has(t.chains, c.Name) {
			t.chains[c.Name] = nftables.Chain{Family: c.Family, Name: c.Name}
		}
	}
	for _, c := range d.StaleChains {
		t := m[c.Family]
		if t == nil || !has(t.chains, c.Name) {
			return fmt.Errorf("delete chain %s: ENOENT", c.Name)
		}
		if by := t.usersOfChain(c.Name); by != "" {
			return fmt.Errorf("delete chain %s: EBUSY: %s", c.Name, by)
		}
		delete(t.chains, c.Name)
	}
	for _, s := range d.StaleSets {
		t := m[s.ID.Family]
		if t == nil || !has(t.sets, s.Name) {
			return fmt.Errorf("delete set %s: ENOENT", s.Name)
		}
		if by := t.usersOfSet(s.Name); by != "" {
			return fmt.Errorf("delete set %s: EBUSY: %s", s.Name, by)
		}
		delete(t.sets, s.Name)
		maps.DeleteFunc(t.elements, func(id nftables.ElementID, _ nftables.Element) bool { return id.Set.Kind.String() == s.Name })
	}
	return nil
}

func (m model) addSet(s nftables.Set) error {
	t := m[s.ID.Family]
	if t == nil {
		return fmt.Errorf("add set %s: ENOENT", s.Name)
	}
	if len(s.Name) > 255 {
		return fmt.Errorf("add set %s: ENAMETOOLONG", s.Name)
	}
	if old, ok := t.sets[s.Name]; ok && old != s { // the same one again is no error
		return fmt.Errorf("add set %s: EEXIST", s.Name)
	}
	t.sets[s.Name] = s
	return nil
}

// addChains creates all chains first, so that rules may refer to each of them.
func (m model) addChains(chains []nftables.Chain) error {
	seen := map[string]bool{}
	for _, c := range chains {
		t := m[c.Family]
		if t == nil || len(c.Name) > 255 || seen[c.Family.String()+c.Name] {
			return fmt.Errorf("add chain %s: ENOENT, ENAMETOOLONG or twice", c.Name)
		}
		seen[c.Family.String()+c.Name] = true
		if old, ok := t.chains[c.Name]; ok && !reflect.DeepEqual(old.Hook, c.Hook) {
			return fmt.Errorf("add chain %s: EBUSY: another hook", c.Name)
		}
		t.chains[c.Name] = nftables.Chain{Family: c.Family, Name: c.Name, Hook: c.Hook}
	}
	for _, c := range chains {
		for _, rule := range c.Rules {
			for _, s := range rule {
				if err := m[c.Family].check(s, c.Family); err != nil {
					return fmt.Errorf("add rule %s %s: %w", c.Name, rule.Text(c.Family), err)
				}
			}
		}
		m[c.Family].chains[c.Name] = c
	}
	return nil
}

// check checks what a statement refers to.
func (t *modelTable) check(s nftables.Statement, f service.Family) error {
	if j, ok := s.(nftables.Jump); ok && !has(t.chains, j.Chain) {
		return fmt.Errorf("chain %s: ENOENT", j.Chain)
	}
	if r, ok := s.(nftables.Remember); ok && r.Timeout.Seconds() < 1 {
		return fmt.Errorf("timeout %s: ERANGE", r.Timeout)
	}
	name, key, data := lookup(s)
	if name == "" {
		return nil
	}
	set, ok := t.sets[name]
	if !ok {
		return fmt.Errorf("set %s: ENOENT", name)
	}
	size := 0
	for _, field := range key {
		size += (field.Size(f) + 3) / 4 * 4
		if field.IsRandom() && (field.RandomMod() == 0 || field.RandomMod() > nftables.MaxSlots) {
			return fmt.Errorf("numgen mod %d: ERANGE", field.RandomMod())
		}
	}
	if size != set.ID.KeySize() || !slices.Equal(data, set.ID.Kind.Schema().Data) {
		return fmt.Errorf("set %s: EINVAL: other key or data", name)
	}
	return nil
}

// lookup returns the set that a statement refers to, the key it looks up and the data it expects.
func lookup(s nftables.Statement) (name string, key []nftables.Field, data []nftables.Column) {
	switch s := s.(type) {
	case nftables.InSet:
		return s.Set, s.Key, nil
	case nftables.Dispatch:
		return s.Map, s.Key, nil
	case nftables.DNAT:
		if s.Port != 0 {
			return s.Map, s.Key, []nftables.Column{nftables.ColumnAddr}
		}
		return s.Map, s.Key, []nftables.Column{nftables.ColumnAddr, nftables.ColumnPort}
	case nftables.Remember:
		return s.Map, []nftables.Field{nftables.SrcAddr}, []nftables.Column{nftables.ColumnAddr}
	}
	return "", nil, nil
}

func (m model) addElement(e nftables.Element) error {
	t := m[e.Set.Family]
	if t == nil || !has(t.sets, e.Set.Kind.String()) {
		return fmt.Errorf("ENOENT")
	}
	if _, ok := t.elements[e.ElementID]; ok {
		return fmt.Errorf("EEXIST")
	}
	schema := e.Set.Kind.Schema()
	if schema.Verdict && !has(t.chains, e.Chain) {
		return fmt.Errorf("chain %s: ENOENT", e.Chain)
	}
	if schema.Interval {
		for _, old := range t.elements {
			if old.Set == e.Set && overlap(old, e) {
				return fmt.Errorf("overlaps with %s: EEXIST", old)
			}
		}
	}
	t.elements[e.ElementID] = e
	return nil
}

func overlap(a, b nftables.Element) bool {
	v, w := a.KeyValues(), b.KeyValues()
	last := len(v.Addrs) - 1
	return v.Protocol == w.Protocol && v.Port == w.Port && slices.Equal(v.Addrs[:last], w.Addrs[:last]) &&
		netip.PrefixFrom(v.Addrs[last], int(a.Bits)).Overlaps(netip.PrefixFrom(w.Addrs[last], int(b.Bits)))
}

// usersOfChain says who refers to the chain; a chain's own rules do not count.
func (t *modelTable) usersOfChain(name string) string {
	for _, e := range t.elements {
		if e.Set.Kind.Schema().Verdict && e.Chain == name {
			return "element " + e.String()
		}
	}
	for _, c := range t.chains {
		for _, rule := range c.Rules {
			if c.Name != name && slices.ContainsFunc(rule, func(s nftables.Statement) bool { return s == nftables.Statement(nftables.Jump{Chain: name}) }) {
				return "chain " + c.Name
			}
		}
	}
	return ""
}

func (t *modelTable) usersOfSet(name string) string {
	for _, c := range t.chains {
		for _, rule := range c.Rules {
			if slices.ContainsFunc(rule, func(s nftables.Statement) bool { used, _, _ := lookup(s); return used == name }) {
				return "chain " + c.Name
			}
		}
	}
	return ""
}

func has[V any](in map[string]V, name string) bool { _, ok := in[name]; return ok }
