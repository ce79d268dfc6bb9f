package rules_test

import (
	"fmt"
	"regexp"
	"testing"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// features returns what a kernel needs for a table of a ruleset: kinds of sets, and in each hook the base
// chain and the statements that packets can reach.
func features(f service.Family, r *rules.Ruleset) map[string]bool {
	found := map[string]bool{}
	for _, s := range r.Sets(f) {
		found[setFeature(s)] = true
	}
	for _, c := range r.Chains(f) {
		if c.Hook == nil {
			continue
		}
		found[fmt.Sprint(*c.Hook)] = true
		for _, rule := range r.Reachable(c) {
			addStatements(found, f, *c.Hook, rule)
		}
	}
	return found
}

func setFeature(s nftables.Set) string { return fmt.Sprintf("set of kind %s", s.ID.Kind) }

// detail matches names and numbers, the differences between statements of one kind.
var detail = regexp.MustCompile(`"[^"]*"|\b(tcp|udp|sctp|0x[0-9a-f]+|[0-9]+s?)\b`)

func addStatements(found map[string]bool, f service.Family, hook nftables.Hook, rule nftables.Rule) {
	for _, s := range rule {
		found[fmt.Sprint(hook, detail.ReplaceAllString(nftables.Rule{s}.Text(f), "_"))] = true
	}
}

// A kernel that accepts the specimens accepts every ruleset: they have all of its features.
func TestSpecimens(t *testing.T) {
	specimens := map[service.Family]map[string]bool{}
	for _, f := range service.Families() {
		found := map[string]bool{}
		sets, list := rules.Specimens(f)
		for _, s := range sets {
			found[setFeature(s)] = true
		}
		for _, s := range list {
			found[fmt.Sprint(s.Hook)] = true
			addStatements(found, f, s.Hook, s.Rule)
		}
		specimens[f] = found
	}
	used := map[service.Family]map[string]bool{service.IPv4: {}, service.IPv6: {}}
	forSeeds(t, func(t *testing.T, seed uint64) {
		g := newGenerator(seed)
		r := g.ruleset(g.config(), nil, 8)
		for _, f := range r.Families() {
			for feature := range features(f, r) {
				used[f][feature] = true
				if !specimens[f][feature] {
					t.Errorf("no specimen of %s in table %s", feature, f)
				}
			}
		}
	})
	for _, f := range service.Families() {
		for feature := range specimens[f] {
			if !used[f][feature] {
				t.Errorf("no ruleset has %s of the specimens in table %s", feature, f)
			}
		}
	}
}
