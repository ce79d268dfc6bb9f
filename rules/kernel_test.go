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
	if err := k.Apply(d, 0); err != nil {
		t.Fatalf("%v\nupon %s\n%s", err, describe(before), deltaText(t, d))
	}
}

// deleteStale does the transaction after a Delta, which the kernel must not refuse.
func deleteStale(t *testing.T, k *fakekernel.Kernel, d *rules.Delta) {
	t.Helper()
	if _, err := k.DeleteStale(d); err != nil {
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

// withoutSpare returns the tables without the chains that may exist though nothing needs them now: those of
// shapes, and the base chains of sticky Services.
func withoutSpare(tables fakekernel.Tables) fakekernel.Tables {
	out := fakekernel.Tables{}
	for f, t := range tables {
		chains := maps.Clone(t.Chains)
		sticky := slices.ContainsFunc(slices.Collect(maps.Keys(t.Sets)), func(name string) bool {
			return strings.HasPrefix(name, nftables.Affinity.String()+"-")
		})
		maps.DeleteFunc(chains, func(name string, _ nftables.Chain) bool {
			return rules.IsShapeChain(name) && t.ChainUser(name) == "" || remembers(name) && !sticky
		})
		out[f] = &fakekernel.Table{Chains: chains, Sets: t.Sets, Elements: t.Elements}
	}
	return out
}

// remembers reports whether a chain of that name is one of those that remember clients of all sticky
// Services.
func remembers(name string) bool {
	return slices.Contains([]string{"affinity", "remember-input", "remember-postrouting"}, name)
}
