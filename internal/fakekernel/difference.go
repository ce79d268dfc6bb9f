package fakekernel

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Difference returns the chains, sets and elements that differ between tables, a line each with - for what
// only want has and + for what only got has. It returns "" if they are equal.
func Difference(want, got Tables) string {
	var out []string
	for _, f := range service.Families() {
		w, g := want[f], got[f]
		if (w == nil) != (g == nil) {
			out = append(out, fmt.Sprintf("table %s: wanted %t, found %t", f, w != nil, g != nil))
		}
		if w == nil || g == nil {
			continue
		}
		out = append(out, differences(w.Chains, g.Chains, sameChain, func(c nftables.Chain) string {
			return fmt.Sprintf("chain %s %s", f, c.Name)
		})...)
		out = append(out, differences(w.Sets, g.Sets, equal, func(s nftables.Set) string {
			return fmt.Sprintf("set %s %s", f, s.Name)
		})...)
		out = append(out, differences(w.Elements, g.Elements, equal, func(e nftables.Element) string {
			return fmt.Sprintf("element %s %s { %s }", f, e.Set.Kind, e)
		})...)
	}
	return strings.Join(out, "\n")
}

func equal[T comparable](a, b T) bool { return a == b }

// differences returns the values that only one of the maps has, sorted.
func differences[K comparable, V any](
	want, got map[K]V, same func(a, b V) bool, text func(V) string) []string {
	var out []string
	for k, w := range want {
		if g, found := got[k]; !found || !same(w, g) {
			out = append(out, "-"+text(w))
		}
	}
	for k, g := range got {
		if w, found := want[k]; !found || !same(w, g) {
			out = append(out, "+"+text(g))
		}
	}
	slices.Sort(out)
	return out
}
