package rules

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// differences says in words where two models differ.
func differences(want, got model) string {
	var out []string
	for _, f := range service.Families() {
		w, g := want[f], got[f]
		switch {
		case w == nil && g == nil:
			continue
		case w == nil || g == nil:
			out = append(out, fmt.Sprintf("table %s: wanted %t, there %t", f, w != nil, g != nil))
			continue
		}
		if g.broken != w.broken {
			out = append(out, fmt.Sprintf("table %s: broken %q, want %q", f, g.broken, w.broken))
		}
		out = append(out, mapDifferences("chain", w.chains, g.chains, sameChain, func(c nftables.Chain) string { return c.Name })...)
		out = append(out, mapDifferences("set", w.sets, g.sets, equal[nftables.Set], func(s nftables.Set) string { return s.Name })...)
		out = append(out, mapDifferences("element", w.elements, g.elements, equal[nftables.Element],
			func(e nftables.Element) string { return fmt.Sprintf("%s { %s }", e.Set.Kind, e) })...)
	}
	return strings.Join(out, "\n")
}

func equal[T comparable](a, b T) bool { return a == b }

func mapDifferences[K comparable, V any](what string, want, got map[K]V, same func(a, b V) bool, name func(V) string) []string {
	var out []string
	for k, w := range want {
		if g, ok := got[k]; !ok {
			out = append(out, fmt.Sprintf("-%s %s", what, name(w)))
		} else if !same(w, g) {
			out = append(out, fmt.Sprintf("-%s %s\n+%s %s", what, name(w), what, name(g)))
		}
	}
	for k, g := range got {
		if _, ok := want[k]; !ok {
			out = append(out, fmt.Sprintf("+%s %s", what, name(g)))
		}
	}
	slices.Sort(out)
	return out
}

// withoutSpare returns the model without the chains that may be there though
// nothing needs them now: those of shapes, and the base chains of sticky Services.
func (m model) withoutSpare() model {
	out := model{}
	for f, t := range m {
		table := *t
		table.chains = maps.Clone(t.chains)
		sticky := slices.ContainsFunc(slices.Collect(maps.Keys(t.sets)), func(name string) bool { return strings.HasPrefix(name, "affinity-") })
		maps.DeleteFunc(table.chains, func(name string, c nftables.Chain) bool {
			return isShapeChain(name) && t.usersOfChain(name) == "" || isMemory(name) && !sticky
		})
		out[f] = &table
	}
	return out
}

func isMemory(name string) bool {
	return name == chainAffinity || name == "remember-input" || name == "remember-postrouting"
}
