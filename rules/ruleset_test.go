package rules_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// named returns the Service web under another name and age, with one endpoint of its own.
func named(name string, age int, backend string) *service.Service {
	svc := web()
	svc.Name.Name = name
	svc.Created = time.Unix(int64(1000-age), 0)
	svc.Ports[0].Endpoints = ready("n2", backend)
	return svc
}

// changesText returns the chains and elements that change, and ends the change.
func changesText(r *rules.Ruleset) []string {
	d := r.Changes()
	r.Done()
	var out []string
	for _, c := range d.Chains {
		out = append(out, "chain "+c.Family.String()+" "+c.Name)
	}
	for _, line := range elementTexts(d.Delete) {
		out = append(out, "- "+line)
	}
	for _, line := range elementTexts(d.Add) {
		out = append(out, "+ "+line)
	}
	return out
}

func checkLines(t *testing.T, what string, want, got []string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestRulesetChanges(t *testing.T) {
	r := rules.NewRuleset(testConfig())
	svc := web()
	put1 := func(what string, change func(), want ...string) {
		t.Helper()
		change()
		if conflicts := putSvc(r, svc); conflicts != nil {
			t.Errorf("%s: conflicts %v", what, conflicts)
		}
		checkLines(t, what, want, changesText(r))
	}
	const key = "10.96.0.10 . tcp . 80"
	put1("new", func() {}, "chain ip cluster-2",
		`+ ip services { `+key+` comment "default/web:http" : 4c00:2 }`,
		"+ ip shapes { 4c00:2 : goto cluster-2 }",
		"+ ip endpoints { "+key+" . 0 : 10.244.1.1 . 8080 }",
		"+ ip endpoints { "+key+" . 1 : 10.244.2.1 . 8080 }",
		"+ ip cluster-ips { 10.96.0.10 }",
		"+ ip hairpin { 10.244.1.1 . 10.244.1.1 }")
	put1("the same again", func() {})
	put1("an endpoint is replaced", func() {
		svc.Ports[0].Endpoints = slices.Concat(ready("n2", "10.244.2.2:8080"), svc.Ports[0].Endpoints[:1])
	},
		"- ip endpoints { "+key+" . 1 : 10.244.2.1 . 8080 }",
		"+ ip endpoints { "+key+" . 1 : 10.244.2.2 . 8080 }")
	put1("an endpoint goes", func() { svc.Ports[0].Endpoints = svc.Ports[0].Endpoints[:1] },
		"chain ip cluster-1",
		`- ip services { `+key+` comment "default/web:http" : 4c00:2 }`,
		"- ip endpoints { "+key+" . 0 : 10.244.1.1 . 8080 }",
		"- ip endpoints { "+key+" . 1 : 10.244.2.2 . 8080 }",
		"- ip hairpin { 10.244.1.1 . 10.244.1.1 }",
		`+ ip services { `+key+` comment "default/web:http" : 4c00:1 }`,
		"+ ip shapes { 4c00:1 : goto cluster-1 }",
		"+ ip endpoints { "+key+" . 0 : 10.244.2.2 . 8080 }")
	put1("and another comes: the shape is there", func() {
		svc.Ports[0].Endpoints = append(svc.Ports[0].Endpoints, ready("n3", "10.244.3.1:8080")...)
	}, `- ip services { `+key+` comment "default/web:http" : 4c00:1 }`,
		`+ ip services { `+key+` comment "default/web:http" : 4c00:2 }`,
		"+ ip endpoints { "+key+" . 1 : 10.244.3.1 . 8080 }")
	put1("restricted load-balancer IP", func() {
		svc.LoadBalancerIPs, svc.Restricted = addrs("203.0.113.1"), true
		svc.SourceRanges = prefixes("10.0.0.0/8")
	}, "chain ip external-2",
		`+ ip services { 203.0.113.1 . tcp . 80 comment "default/web:http" : 4e00:2 }`,
		"+ ip shapes { 4e00:2 : goto external-2 }",
		"+ ip endpoints { 203.0.113.1 . tcp . 80 . 0 : 10.244.2.2 . 8080 }",
		"+ ip endpoints { 203.0.113.1 . tcp . 80 . 1 : 10.244.3.1 . 8080 }",
		"+ ip firewalled { 203.0.113.1 . tcp . 80 }",
		"+ ip allowed-sources { 203.0.113.1 . tcp . 80 . 10.0.0.0/8 }")
	put1("other ranges", func() { svc.SourceRanges = prefixes("11.0.0.0/8 10.0.0.0/16") },
		"- ip allowed-sources { 203.0.113.1 . tcp . 80 . 10.0.0.0/8 }",
		"+ ip allowed-sources { 203.0.113.1 . tcp . 80 . 10.0.0.0/16 }",
		"+ ip allowed-sources { 203.0.113.1 . tcp . 80 . 11.0.0.0/8 }")
	r.Remove(svc.Name)
	r.Remove(service.Name{Namespace: "default", Name: "unknown"})
	if n := len(changesText(r)); n != 10 || r.Len() != 0 || len(r.Names()) != 0 {
		t.Errorf("removed: %d changes, want 10; %d frontends, %v are left", n, r.Len(), r.Names())
	}
	put1("there and gone without a commit", func() {
		putSvc(r, named("x", 1, ep1))
		r.Remove(service.Name{Namespace: "default", Name: "x"})
		r.Remove(svc.Name)
	},
		changesOf(svc)...)
}

// changesOf are the additions for a Service whose shapes are known.
func changesOf(svc *service.Service) []string {
	r := rules.NewRuleset(testConfig())
	putSvc(r, svc)
	return slices.DeleteFunc(changesText(r), func(line string) bool {
		return line[0] == 'c' || strings.HasPrefix(line, "+ ip shapes")
	})
}

// Until Done, Changes returns all changes each time.
func TestRulesetChangesUntilDone(t *testing.T) {
	r := rules.NewRuleset(testConfig())
	putSvc(r, web())
	first := deltaText(t, r.Changes())
	if again := deltaText(t, r.Changes()); again != first {
		t.Errorf("a second call of Changes (-first +second):\n%s", cmp.Diff(first, again))
	}
	r.Remove(web().Name)
	d := r.Changes()
	if !d.Empty() {
		t.Errorf("put and removed without Done leaves:\n%s", deltaText(t, d))
	}
}

func TestRulesetFamilies(t *testing.T) {
	config := testConfig()
	config.Families = []service.Family{service.IPv6}
	r := rules.NewRuleset(config)
	svc := web()
	svc.ClusterIPs = addrs("10.96.0.10 fd00:96::10")
	svc.AffinityTimeout = time.Hour
	svc.Ports[0].Endpoints = append(svc.Ports[0].Endpoints, ready("n1", "[fd00::1]:80")...)
	putSvc(r, svc)
	for _, e := range slices.Concat(r.Changes().Add, rules.Diff(r, rules.Programmed{}).Add) {
		if e.Set.Family != service.IPv6 {
			t.Errorf("IPv4 is not programmed, but there is %s { %s }", e.Set.Kind, e)
		}
	}
	for _, s := range r.Changes().Sets {
		if s.ID.Family != service.IPv6 {
			t.Errorf("IPv4 is not programmed, but there is the set %s", s.Name)
		}
	}
	if r.Len() != 1 {
		t.Errorf("%d frontends, want 1", r.Len())
	}
}

// The order in which families are configured does not matter.
func TestRulesetFamilyOrder(t *testing.T) {
	text := func(families ...service.Family) []string {
		config := testConfig()
		config.Families = families
		r := rules.NewRuleset(config)
		svc := web()
		svc.ClusterIPs = addrs("10.96.0.10 fd00:96::10")
		putSvc(r, svc)
		lines := slices.Sorted(slices.Values(linesOf(rulesetText(t, r))))
		return lines
	}
	checkLines(t, "IPv6 first", text(service.IPv4, service.IPv6), text(service.IPv6, service.IPv4))
}

func TestRulesetReferences(t *testing.T) {
	r := rules.NewRuleset(testConfig())
	a, b := web(), web()
	b.Name.Name, b.Ports[0].Port = "b", 81
	putSvc(r, a)
	r.Done()
	putSvc(r, b) // with the same ClusterIP and the same endpoint here
	for _, line := range changesText(r) {
		if line == "+ ip cluster-ips { 10.96.0.10 }" || line == "+ ip hairpin { 10.244.1.1 . 10.244.1.1 }" {
			t.Errorf("the second Service with an address adds it again: %s", line)
		}
	}
	r.Remove(a.Name)
	checkLines(t, "the first of two goes", []string{
		`- ip services { 10.96.0.10 . tcp . 80 comment "default/web:http" : 4c00:2 }`,
		"- ip endpoints { 10.96.0.10 . tcp . 80 . 0 : 10.244.1.1 . 8080 }",
		"- ip endpoints { 10.96.0.10 . tcp . 80 . 1 : 10.244.2.1 . 8080 }",
	}, changesText(r))
	r.Remove(b.Name)
	checkLines(t, "the second goes", []string{
		`- ip services { 10.96.0.10 . tcp . 81 comment "default/b:http" : 4c00:2 }`,
		"- ip endpoints { 10.96.0.10 . tcp . 81 . 0 : 10.244.1.1 . 8080 }",
		"- ip endpoints { 10.96.0.10 . tcp . 81 . 1 : 10.244.2.1 . 8080 }",
		"- ip cluster-ips { 10.96.0.10 }",
		"- ip hairpin { 10.244.1.1 . 10.244.1.1 }",
	}, changesText(r))
}
