package rules_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// The same Services give the same bytes, in any order.
func TestTextDeterminism(t *testing.T) {
	for seed := range uint64(50) {
		g := newGenerator(seed)
		config, node := g.config(), g.node()
		var compiled []*rules.Compiled
		for i := range 6 {
			compiled = append(compiled, rules.Compile(g.service(i), node, noSlots, rules.MaxShare))
		}
		var texts [3]string
		for i := range texts {
			r := rules.NewRuleset(config)
			for _, j := range g.Perm(len(compiled)) {
				r.Put(compiled[j])
			}
			texts[i] = rulesetText(t, r) + deltaText(t, rules.Diff(r, rules.Programmed{})) +
				deltaText(t, r.Changes())
		}
		for _, text := range texts[1:] {
			if text != texts[0] {
				checkLines(t, "second order", linesOf(texts[0]), linesOf(text))
				t.Fatalf("seed %d: the text depends on the order of Services", seed)
			}
		}
	}
}

// Every element stands in the text once, in its set.
func TestTextElements(t *testing.T) {
	for seed := range uint64(20) {
		g := newGenerator(seed)
		r := g.ruleset(g.config(), nil, 8)
		want := map[string][]string{}
		for e := range r.Elements() {
			set := e.Set.Family.String() + " " + e.Set.Kind.String()
			want[set] = append(want[set], e.String())
		}
		got, family, set := map[string][]string{}, "", ""
		for _, l := range linesOf(rulesetText(t, r)) {
			words := strings.Fields(l)
			switch {
			case strings.HasPrefix(l, "table "):
				family = words[1]
			case strings.HasPrefix(l, "\tset "), strings.HasPrefix(l, "\tmap "):
				set = family + " " + words[1]
			case strings.HasPrefix(l, "\t\t\t"):
				got[set] = append(got[set], strings.TrimSuffix(strings.TrimSpace(l), ","))
			}
		}
		for _, m := range []map[string][]string{want, got} {
			for _, lines := range m {
				slices.Sort(lines)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("seed %d: elements (-want +got):\n%s", seed, diff)
		}
	}
}

// The Delta does not depend on the iteration order of maps.
func TestDeltaDeterminism(t *testing.T) {
	for seed := range uint64(50) {
		var texts [2]string
		for i := range texts {
			g := newGenerator(seed)
			config := g.config()
			kernel := tablesOf(g.ruleset(config, nil, 8))
			g.damage(kernel)
			r := g.ruleset(config, kernel.Programmed(nil).Slots(), 8)
			texts[i] = deltaText(t, rules.Diff(r, kernel.Programmed(r)))
			r.Done()
			for j := range 4 {
				r.Put(rules.Compile(g.service(j), g.node(), r.Slots, rules.MaxShare))
			}
			texts[i] += deltaText(t, r.Changes())
		}
		if texts[0] != texts[1] {
			checkLines(t, "second run", linesOf(texts[0]), linesOf(texts[1]))
			t.Fatalf("seed %d: the text of the Delta differs", seed)
		}
	}
}

// Commands that follow the transaction stand at the end, after a comment.
func TestDeltaTextAfter(t *testing.T) {
	before, after := rules.NewRuleset(testConfig()), rules.NewRuleset(testConfig())
	svc := web()
	svc.AffinityTimeout, svc.InternalLocal, svc.ExternalLocal = time.Hour, true, true
	svc.ExternalIPs = addrs("198.51.100.1")
	putSvc(before, svc)
	kernel := tablesOf(before)
	old := nftables.Set{ID: nftables.SetID{Family: service.IPv4, Kind: nftables.Affinity}, Name: "affinity-old"}
	kernel[service.IPv4].Sets[old.Name] = old
	lines := linesOf(deltaText(t, rules.Diff(after, kernel.Programmed(after))))
	at := slices.Index(lines, "# after the commit:")
	if at < 0 {
		t.Fatalf("no comment before the commands after the commit:\n%s", strings.Join(lines, "\n"))
	}
	for _, line := range lines[:at] {
		if !strings.HasPrefix(line, "delete element ") {
			t.Errorf("before the commit: %s", line)
		}
	}
	checkLines(t, "after the commit", []string{
		"flush chain ip nftproxy sticky-any-2-3600",
		"flush chain ip nftproxy sticky-cluster-1-3600",
		"flush chain ip nftproxy sticky-local-1-of-2-3600",
		"delete chain ip nftproxy sticky-any-2-3600",
		"delete chain ip nftproxy sticky-cluster-1-3600",
		"delete chain ip nftproxy sticky-local-1-of-2-3600",
		"delete set ip nftproxy affinity-old",
	}, lines[at+1:])
}
