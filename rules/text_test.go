package rules_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// The same Services give the same bytes, in whatever order they come.
func TestTextDeterminism(t *testing.T) {
	for seed := range uint64(50) {
		g := newGenerator(seed)
		config, node := g.config(), g.node()
		var compiled []*rules.Compiled
		for i := range 6 {
			compiled = append(compiled, rules.Compile(g.service(i), node, noSlots))
		}
		var texts [3]string
		for i := range texts {
			r := rules.NewRuleset(config)
			for _, j := range g.Perm(len(compiled)) {
				r.Put(compiled[j])
			}
			texts[i] = rulesetText(t, r) + deltaText(t, rules.Diff(r, rules.Programmed{})) + deltaText(t, r.Changes())
		}
		for _, text := range texts[1:] {
			if text != texts[0] {
				checkLines(t, "second order", linesOf(texts[0]), linesOf(text))
				t.Fatalf("seed %d: the text depends on the order of Services", seed)
			}
		}
	}
}

// Every element stands in the text once, in the set that it is of.
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

// The Delta does not depend on the order in which maps are walked.
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
				r.Put(rules.Compile(g.service(j), g.node(), r.Slots))
			}
			texts[i] += deltaText(t, r.Changes())
		}
		if texts[0] != texts[1] {
			checkLines(t, "second run", linesOf(texts[0]), linesOf(texts[1]))
			t.Fatalf("seed %d: the text of the Delta differs", seed)
		}
	}
}

// The rules of every kind of chain, for both families and ways to tell pods' traffic.
func TestChainText(t *testing.T) {
	byInterface := testConfig()
	byInterface.PodTraffic = rules.PodTraffic{Interface: "veth*"}
	unknown, all := testConfig(), testConfig()
	unknown.PodTraffic = rules.PodTraffic{CIDRs: prefixes("10.244.0.0/16")}
	all.MasqueradeAll = true
	const mark = "meta mark set meta mark | 0x00004000"
	const key = "ip daddr . meta l4proto . th dport . numgen random mod "
	const key6 = "ip6 daddr . meta l4proto . th dport . numgen random mod "
	tests := []struct {
		name   string
		shape  rules.Shape
		family service.Family
		config rules.Config
		chain  string
		rules  []string
	}{
		{"drop", rules.Shape{Kind: rules.ShapeDrop}, service.IPv4, testConfig(), "no-local-endpoints", []string{"drop"}},
		{"cluster", rules.Shape{Kind: rules.ShapeCluster, N: 3}, service.IPv4, testConfig(), "cluster-3",
			[]string{"ip saddr != @pod-cidrs " + mark, "dnat ip to " + key + "3 map @endpoints"}},
		{"cluster, IPv6, by interface", rules.Shape{Kind: rules.ShapeCluster, N: 1}, service.IPv6, byInterface, "cluster-1",
			[]string{`iifname != "veth*" ` + mark, "dnat ip6 to " + key6 + "1 map @endpoints"}},
		{"cluster, pods of the family not known", rules.Shape{Kind: rules.ShapeCluster, N: 1}, service.IPv6, unknown, "cluster-1",
			[]string{"dnat ip6 to " + key6 + "1 map @endpoints"}},
		{"cluster, masquerade all", rules.Shape{Kind: rules.ShapeCluster, N: 1}, service.IPv4, all, "cluster-1",
			[]string{mark, "dnat ip to " + key + "1 map @endpoints"}},
		{"external", rules.Shape{Kind: rules.ShapeExternal, N: nftables.MaxSlots}, service.IPv4, byInterface, "external-65536",
			[]string{mark, "dnat ip to " + key + "65536 map @endpoints"}},
		{"local", rules.Shape{Kind: rules.ShapeLocal, N: 3, Locals: 2}, service.IPv4, testConfig(), "local-2-of-3", []string{
			"fib saddr type local " + mark,
			"fib saddr type local dnat ip to " + key + "3 map @endpoints",
			"ip saddr @pod-cidrs dnat ip to " + key + "3 map @endpoints",
			"dnat ip to " + key + "2 map @local-endpoints"}},
		{"local, none here, pods not known", rules.Shape{Kind: rules.ShapeLocal, N: 3}, service.IPv6, unknown, "local-0-of-3", []string{
			"fib saddr type local " + mark,
			"fib saddr type local dnat ip6 to " + key6 + "3 map @endpoints",
			"drop"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := tt.shape.Chain(tt.family, tt.config)
			var got []string
			for _, r := range c.Rules {
				got = append(got, r.Text(tt.family))
			}
			checkLines(t, "rules", tt.rules, got)
			if c.Name != tt.chain || c.Family != tt.family || c.Hook != nil {
				t.Errorf("chain is %s %s %v, want %s %s", c.Family, c.Name, c.Hook, tt.family, tt.chain)
			}
		})
	}
}

// What comes after the transaction stands behind a comment, at the end.
func TestDeltaTextAfter(t *testing.T) {
	r := rules.NewRuleset(testConfig())
	svc := web()
	svc.AffinityTimeout = time.Hour
	putSvc(r, svc)
	r.Done()
	r.Remove(svc.Name)
	lines := linesOf(deltaText(t, r.Changes()))
	at := slices.Index(lines, "# after the commit:")
	if at < 0 {
		t.Fatalf("no comment before what comes after the commit:\n%s", strings.Join(lines, "\n"))
	}
	for _, line := range lines[:at] {
		if verb, object, _ := strings.Cut(line, " "); verb == "delete" && !strings.HasPrefix(object, "element") {
			t.Errorf("before the commit: %s", line)
		}
	}
	var after []string
	for _, line := range lines[at+1:] {
		if strings.HasPrefix(line, "delete") {
			after = append(after, line)
		}
	}
	checkLines(t, "after the commit", []string{
		"delete chain ip nftproxy remember-cluster/default/web/tcp/80",
		"delete chain ip nftproxy sticky-cluster/default/web/tcp/80",
		"delete set ip nftproxy affinity-cluster/default/web/tcp/80/8080",
	}, after)
}

func TestPrefixProperties(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		g := generator{rnd}
		in := some(g, 12, prefixes("0.0.0.0/0 10.0.0.0/8 10.0.0.0/9 10.128.0.0/9 10.1.0.0/16 10.1.2.3/24 10.1.2.3/32 11.0.0.0/8 fd00::/8")...)
		out := rules.PrefixesOf(service.IPv4, in)
		for i, p := range out {
			for _, q := range out[i+1:] {
				if p.Overlaps(q) || p.Compare(q) >= 0 {
					t.Fatalf("seed %d: prefixesOf(%v) = %v: overlapping or not sorted", seed, in, out)
				}
			}
		}
		for _, p := range in {
			covered := slices.ContainsFunc(out, func(q netip.Prefix) bool { return q.Contains(p.Addr()) && q.Bits() <= p.Bits() })
			if p.Addr().Is4() != covered {
				t.Fatalf("seed %d: prefixesOf(%v) = %v: %s covered %t", seed, in, out, p, covered)
			}
		}
	}
}
