package rules_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/nftproxy/nftproxy/internal/fakekernel"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
)

// tablesOf returns the tables of a kernel that holds a ruleset and nothing else.
func tablesOf(r *rules.Ruleset) fakekernel.Tables {
	tables := fakekernel.Tables{}
	for _, f := range r.Families() {
		tables[f] = fakekernel.NewTable()
		for _, c := range r.Chains(f) {
			tables[f].Chains[c.Name] = c
		}
		for _, s := range r.Sets(f) {
			tables[f].Sets[s.Name] = s
		}
	}
	for e := range r.Elements() {
		if _, twice := tables[e.Set.Family].Elements[e.ElementID]; twice {
			panic(fmt.Sprintf("element is desired twice: %s", e))
		}
		tables[e.Set.Family].Elements[e.ElementID] = e
	}
	return tables
}

// kernelWith returns a kernel that holds the tables.
func kernelWith(tables fakekernel.Tables) *fakekernel.Kernel {
	k := fakekernel.New()
	k.Edit(func(ts fakekernel.Tables) { maps.Copy(ts, tables) })
	return k
}

// programmed returns the state of the kernel, compared with a ruleset.
func programmed(k *fakekernel.Kernel, desired *rules.Ruleset) rules.Programmed {
	return k.Tables().Programmed(desired)
}

// apply commits a Delta, which the kernel must not refuse.
func apply(t *testing.T, k *fakekernel.Kernel, d *rules.Delta) {
	t.Helper()
	before := k.Tables()
	if err := k.Apply(d); err != nil {
		t.Fatalf("%v\nupon %s\n%s", err, describe(before), deltaText(t, d))
	}
}

// deleteStale does the transaction after a Delta, which the kernel must not refuse.
func deleteStale(t *testing.T, k *fakekernel.Kernel, d *rules.Delta) {
	t.Helper()
	if err := k.DeleteStale(d); err != nil {
		t.Fatalf("%v\n%s", err, deltaText(t, d))
	}
}

// describe returns the size of tables, for messages.
func describe(tables fakekernel.Tables) string {
	var out []string
	for f, t := range tables {
		out = append(out, fmt.Sprintf("table %s with %d chains, %d sets, %d elements",
			f, len(t.Chains), len(t.Sets), len(t.Elements)))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// withoutSpare returns the tables without the shapes that they have though no frontend has them now: their
// numbers and their chains.
func withoutSpare(tables fakekernel.Tables) fakekernel.Tables {
	out := fakekernel.Tables{}
	for f, t := range tables {
		used := map[nftables.Class]bool{}
		for id, e := range t.Elements {
			if id.Set.Kind == nftables.Services {
				used[e.DataValues().Class] = true
			}
		}
		spare := &fakekernel.Table{Chains: maps.Clone(t.Chains), Sets: t.Sets, Elements: maps.Clone(t.Elements)}
		maps.DeleteFunc(spare.Elements, func(id nftables.ElementID, _ nftables.Element) bool {
			return id.Set.Kind == nftables.Shapes && !used[id.KeyValues().Class]
		})
		dropUnusedShapes(spare)
		out[f] = spare
	}
	return out
}

// dropUnusedShapes takes out the chains of shapes that nothing leads to. One may lead to another.
func dropUnusedShapes(t *fakekernel.Table) {
	for {
		before := len(t.Chains)
		maps.DeleteFunc(t.Chains, func(name string, _ nftables.Chain) bool {
			return rules.IsShapeChain(name) && t.ChainUser(name) == ""
		})
		if len(t.Chains) == before {
			return
		}
	}
}
