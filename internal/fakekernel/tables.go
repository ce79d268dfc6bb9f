package fakekernel

import (
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Tables are the tables of a Kernel by family.
type Tables map[service.Family]*Table

// Table is one table.
type Table struct {
	Chains   map[string]nftables.Chain
	Sets     map[string]nftables.Set
	Elements map[nftables.ElementID]nftables.Element // of all sets
}

// NewTable returns an empty Table.
func NewTable() *Table {
	return &Table{
		Chains:   map[string]nftables.Chain{},
		Sets:     map[string]nftables.Set{},
		Elements: map[nftables.ElementID]nftables.Element{},
	}
}

func (ts Tables) clone() Tables {
	out := make(Tables, len(ts))
	for f, t := range ts {
		out[f] = t.clone()
	}
	return out
}

// clone copies the maps. Chains share their rules, which nobody changes in place.
func (t *Table) clone() *Table {
	return &Table{maps.Clone(t.Chains), maps.Clone(t.Sets), maps.Clone(t.Elements)}
}

// Programmed returns what kernel.Conn reads from the tables. Without a desired ruleset to compare with, it
// reads no chain as the desired one.
func (ts Tables) Programmed(desired *rules.Ruleset) rules.Programmed {
	p := rules.Programmed{}
	for f, t := range ts {
		read := rules.NewTableState()
		for name := range t.Chains {
			read.Chains[name] = false
		}
		for name, s := range t.Sets {
			read.Sets[name] = s.Counter
		}
		for _, kind := range nftables.SetKinds() {
			if s, found := t.Sets[kind.String()]; found && s.ID.Kind != kind {
				read.Broken = fmt.Sprintf("set %s has another layout", s.Name)
			}
		}
		maps.Copy(read.Elements, t.Elements)
		if desired != nil {
			t.compare(read, desired.Chains(f))
		}
		p[f] = read
	}
	return p
}

// compare notes which of the wanted chains the table has with the same rules.
func (t *Table) compare(read *rules.TableState, want []nftables.Chain) {
	for _, w := range want {
		c, found := t.Chains[w.Name]
		if !found {
			continue
		}
		if !sameHook(c, w) {
			read.Broken = fmt.Sprintf("chain %s is on another hook", w.Name)
		}
		read.Chains[w.Name] = sameChain(c, w)
	}
}

func sameHook(a, b nftables.Chain) bool { return reflect.DeepEqual(a.Hook, b.Hook) }

func sameChain(a, b nftables.Chain) bool {
	sameRule := func(r, s nftables.Rule) bool { return reflect.DeepEqual(r, s) }
	return a.Family == b.Family && a.Name == b.Name && sameHook(a, b) &&
		slices.EqualFunc(a.Rules, b.Rules, sameRule)
}

// drifted reports whether the tables differ from a ruleset in chains, sets or the number of a set's elements.
func (ts Tables) drifted(want *rules.Ruleset) bool {
	counts := map[nftables.SetID]int{}
	for _, t := range ts {
		for id := range t.Elements {
			counts[id.Set]++
		}
	}
	programmed, wanted := ts.Programmed(want), want.Counts()
	for _, f := range want.Families() {
		read := programmed[f]
		if read == nil || read.Broken != "" {
			return true
		}
		for _, c := range want.Chains(f) {
			if !read.Chains[c.Name] {
				return true
			}
		}
		for _, kind := range nftables.SetKinds() {
			id := nftables.SetID{Family: f, Kind: kind}
			if _, found := read.Sets[kind.String()]; !found || counts[id] != wanted[id] {
				return true
			}
		}
	}
	return false
}
