package rules_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/internal/fakekernel"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// With session affinity a change writes the elements that differ, and the chain of a shape that is new.
func TestStickyLife(t *testing.T) {
	r, svc := rules.NewRuleset(testConfig()), web()
	for _, s := range stickyLife(svc) {
		s.change()
		putSvc(r, svc)
		checkLines(t, s.what, s.want, changesText(r))
	}
	r.Remove(svc.Name)
	const key = "10.96.0.10 . tcp . 80"
	checkLines(t, "removed", []string{
		"- ip services { " + key + ` comment "default/web:http" : 4a00:4 }`,
		"- ip sticky-slots { " + key + " . 0 : af4:101 }",
		"- ip sticky-backends { " + key + " . af4:101 : 10.244.1.1 . 8080 }",
		"- ip cluster-ips { 10.96.0.10 }",
	}, changesText(r))
}

// stickyStep changes a Service, and has the changes of the tables that this leads to.
type stickyStep struct {
	what   string
	change func()
	want   []string
}

func stickyLife(svc *service.Service) []stickyStep {
	const key = "10.96.0.10 . tcp . 80"
	frontend := func(number string) string {
		return `ip services { ` + key + ` comment "default/web:http" : ` + number + " }"
	}
	shape := func(number, chain string) string { return "+ ip shapes { " + number + " : goto " + chain + " }" }
	slot := func(n, number string) string {
		return "ip sticky-slots { " + key + " . " + n + " : " + number + " }"
	}
	backend := func(number, b string) string {
		return "ip sticky-backends { " + key + " . " + number + " : " + b + " }"
	}
	const b1, b2, b3 = "10.244.1.1 . 8080", "10.244.2.1 . 8080", "10.244.3.1 . 8080"
	svc.AffinityTimeout = time.Hour
	svc.Ports[0].Endpoints = ready("n2", "10.244.1.1:8080 10.244.2.1:8080")
	endpoints := func(texts string) func() { return func() { svc.Ports[0].Endpoints = ready("n2", texts) } }
	timeout := func(d time.Duration) func() { return func() { svc.AffinityTimeout = d } }
	return []stickyStep{
		{"appears", func() {}, []string{"chain ip sticky-cluster-2-3600",
			"+ " + frontend("4a00:1"), shape("4a00:1", "sticky-cluster-2-3600"),
			"+ " + slot("0", "af4:101"), "+ " + slot("1", "af4:201"),
			"+ " + backend("af4:101", b1), "+ " + backend("af4:201", b2), "+ ip cluster-ips { 10.96.0.10 }"}},
		{"nothing changes", func() {}, nil},
		{"an endpoint comes", endpoints("10.244.1.1:8080 10.244.2.1:8080 10.244.3.1:8080"), []string{
			"chain ip sticky-cluster-3-3600", "- " + frontend("4a00:1"), "+ " + frontend("4a00:2"),
			shape("4a00:2", "sticky-cluster-3-3600"), "+ " + slot("2", "af4:301"), "+ " + backend("af4:301", b3)}},
		{"an endpoint goes, the last takes its slot", endpoints("10.244.2.1:8080 10.244.3.1:8080"), []string{
			"- " + frontend("4a00:2"), "- " + slot("0", "af4:101"), "- " + slot("2", "af4:301"),
			"- " + backend("af4:101", b1), "+ " + frontend("4a00:1"), "+ " + slot("0", "af4:301")}},
		{"an endpoint is replaced", endpoints("10.244.1.1:8080 10.244.3.1:8080"), []string{
			"- " + slot("1", "af4:201"), "- " + backend("af4:201", b2),
			"+ " + slot("1", "af4:101"), "+ " + backend("af4:101", b1)}},
		{"another target port of one address", endpoints("10.244.1.1:8080 10.244.3.1:9090"), []string{
			"- " + backend("af4:301", b3), "+ " + backend("af4:301", "10.244.3.1 . 9090")}},
		{"two target ports of one address", endpoints("10.244.3.1:8080 10.244.3.1:9090"), []string{
			"- " + slot("1", "af4:101"), "- " + backend("af4:101", b1),
			"+ " + slot("1", "af4:302"), "+ " + backend("af4:302", b3)}},
		{"another timeout", timeout(time.Minute), []string{"chain ip sticky-cluster-2-60",
			"- " + frontend("4a00:1"), "+ " + frontend("4a00:3"), shape("4a00:3", "sticky-cluster-2-60")}},
		{"the timeout from before", timeout(time.Hour), []string{
			"- " + frontend("4a00:3"), "+ " + frontend("4a00:1")}},
		{"no endpoint", endpoints(""), []string{"chain ip no-endpoints", "- " + frontend("4a00:1"),
			"- " + slot("0", "af4:301"), "- " + slot("1", "af4:302"),
			"- " + backend("af4:301", "10.244.3.1 . 9090"), "- " + backend("af4:302", b3),
			"+ " + frontend("4f00:0"), shape("4f00:0", "no-endpoints")}},
		{"endpoints again", endpoints("10.244.1.1:8080"), []string{"chain ip sticky-cluster-1-3600",
			"- " + frontend("4f00:0"), "+ " + frontend("4a00:4"), shape("4a00:4", "sticky-cluster-1-3600"),
			"+ " + slot("0", "af4:101"), "+ " + backend("af4:101", b1)}},
		{"no longer sticky", timeout(0), []string{"chain ip cluster-1",
			"- " + frontend("4a00:4"), "- " + slot("0", "af4:101"), "- " + backend("af4:101", b1),
			"+ " + frontend("4c00:1"), shape("4c00:1", "cluster-1"),
			"+ ip endpoints { " + key + " . 0 : " + b1 + " }"}},
		{"sticky again", timeout(time.Hour), []string{
			"- " + frontend("4c00:1"), "- ip endpoints { " + key + " . 0 : " + b1 + " }",
			"+ " + frontend("4a00:4"), "+ " + slot("0", "af4:101"), "+ " + backend("af4:101", b1)}},
	}
}

// With policy Local, the endpoints on this node are in maps of their own, and have the numbers that they have
// among all.
func TestStickyLocalElements(t *testing.T) {
	r, svc := rules.NewRuleset(testConfig()), stickyLocal()
	putSvc(r, svc)
	const one, two = "2001:db8:1::1 . tcp . 80 . ", "fd00:96::10 . tcp . 80 . "
	checkLines(t, "new", []string{
		"chain ip6 sticky-any-2-3600", "chain ip6 sticky-cluster-2-3600", "chain ip6 sticky-local-1-of-2-3600",
		`+ ip6 services { 2001:db8:1::1 . tcp . 80 comment "default/web:http" : 4a00:2 }`,
		`+ ip6 services { fd00:96::10 . tcp . 80 comment "default/web:http" : 4a00:1 }`,
		"+ ip6 shapes { 4a00:1 : goto sticky-cluster-2-3600 }",
		"+ ip6 shapes { 4a00:2 : goto sticky-local-1-of-2-3600 }",
		"+ ip6 sticky-slots { " + one + "0 : 9402:5ccb }", "+ ip6 sticky-slots { " + one + "1 : 9502:5e5e }",
		"+ ip6 sticky-slots { " + two + "0 : 9402:5ccb }", "+ ip6 sticky-slots { " + two + "1 : 9502:5e5e }",
		"+ ip6 sticky-backends { " + one + "9402:5ccb : fd00::1 . 80 }",
		"+ ip6 sticky-backends { " + one + "9502:5e5e : fd00::2 . 80 }",
		"+ ip6 sticky-backends { " + two + "9402:5ccb : fd00::1 . 80 }",
		"+ ip6 sticky-backends { " + two + "9502:5e5e : fd00::2 . 80 }",
		"+ ip6 sticky-local-slots { " + one + "0 : 9402:5ccb }",
		"+ ip6 sticky-local-backends { " + one + "9402:5ccb : fd00::1 . 80 }",
		"+ ip6 cluster-ips { fd00:96::10 }", "+ ip6 hairpin { fd00::1 . fd00::1 }",
	}, changesText(r))

	svc.Ports[0].Endpoints = append(ready("n1", "[fd00::3]:80"), svc.Ports[0].Endpoints[1:]...)
	putSvc(r, svc)
	checkLines(t, "the endpoint here is replaced", []string{
		"- ip6 sticky-slots { " + one + "0 : 9402:5ccb }", "- ip6 sticky-slots { " + two + "0 : 9402:5ccb }",
		"- ip6 sticky-backends { " + one + "9402:5ccb : fd00::1 . 80 }",
		"- ip6 sticky-backends { " + two + "9402:5ccb : fd00::1 . 80 }",
		"- ip6 sticky-local-slots { " + one + "0 : 9402:5ccb }",
		"- ip6 sticky-local-backends { " + one + "9402:5ccb : fd00::1 . 80 }",
		"- ip6 hairpin { fd00::1 . fd00::1 }",
		"+ ip6 sticky-slots { " + one + "0 : 9602:5ff1 }", "+ ip6 sticky-slots { " + two + "0 : 9602:5ff1 }",
		"+ ip6 sticky-backends { " + one + "9602:5ff1 : fd00::3 . 80 }",
		"+ ip6 sticky-backends { " + two + "9602:5ff1 : fd00::3 . 80 }",
		"+ ip6 sticky-local-slots { " + one + "0 : 9602:5ff1 }",
		"+ ip6 sticky-local-backends { " + one + "9602:5ff1 : fd00::3 . 80 }",
		"+ ip6 hairpin { fd00::3 . fd00::3 }",
	}, changesText(r))
}

// stickyLocal is a Service of IPv6 with session affinity and policy Local, with an endpoint here and one
// elsewhere.
func stickyLocal() *service.Service {
	svc := web()
	svc.AffinityTimeout, svc.ExternalLocal = time.Hour, true
	svc.ClusterIPs, svc.ExternalIPs = addrs("fd00:96::10"), addrs("2001:db8:1::1")
	svc.Ports[0].Endpoints = append(ready("n1", "[fd00::1]:80"), ready("n2", "[fd00::2]:80")...)
	return svc
}

// Without session affinity the endpoints keep their slots, in other maps.
func TestStickyLocalOff(t *testing.T) {
	r, svc := rules.NewRuleset(testConfig()), stickyLocal()
	putSvc(r, svc)
	changesText(r)
	svc.Ports[0].Endpoints = slices.Concat(ready("n1", "[fd00::3]:80"), svc.Ports[0].Endpoints[1:])
	putSvc(r, svc)
	changesText(r)
	svc.AffinityTimeout = 0
	putSvc(r, svc)
	const one, two = "2001:db8:1::1 . tcp . 80 . ", "fd00:96::10 . tcp . 80 . "
	checkLines(t, "no longer sticky", []string{
		"chain ip6 cluster-2", "chain ip6 local-1-of-2",
		`- ip6 services { 2001:db8:1::1 . tcp . 80 comment "default/web:http" : 4a00:2 }`,
		`- ip6 services { fd00:96::10 . tcp . 80 comment "default/web:http" : 4a00:1 }`,
		"- ip6 sticky-slots { " + one + "0 : 9602:5ff1 }", "- ip6 sticky-slots { " + one + "1 : 9502:5e5e }",
		"- ip6 sticky-slots { " + two + "0 : 9602:5ff1 }", "- ip6 sticky-slots { " + two + "1 : 9502:5e5e }",
		"- ip6 sticky-backends { " + one + "9502:5e5e : fd00::2 . 80 }",
		"- ip6 sticky-backends { " + one + "9602:5ff1 : fd00::3 . 80 }",
		"- ip6 sticky-backends { " + two + "9502:5e5e : fd00::2 . 80 }",
		"- ip6 sticky-backends { " + two + "9602:5ff1 : fd00::3 . 80 }",
		"- ip6 sticky-local-slots { " + one + "0 : 9602:5ff1 }",
		"- ip6 sticky-local-backends { " + one + "9602:5ff1 : fd00::3 . 80 }",
		`+ ip6 services { 2001:db8:1::1 . tcp . 80 comment "default/web:http" : 5001:2 }`,
		`+ ip6 services { fd00:96::10 . tcp . 80 comment "default/web:http" : 4c00:2 }`,
		"+ ip6 shapes { 4c00:2 : goto cluster-2 }", "+ ip6 shapes { 5001:2 : goto local-1-of-2 }",
		"+ ip6 endpoints { " + one + "0 : fd00::3 . 80 }", "+ ip6 endpoints { " + one + "1 : fd00::2 . 80 }",
		"+ ip6 endpoints { " + two + "0 : fd00::3 . 80 }", "+ ip6 endpoints { " + two + "1 : fd00::2 . 80 }",
		"+ ip6 local-endpoints { " + one + "0 : fd00::3 . 80 }",
	}, changesText(r))
}

// stickyChains returns the rules of the chains with session affinity in a table, each after the name of its
// chain.
func stickyChains(r *rules.Ruleset, f service.Family) []string {
	var out []string
	for _, c := range r.Chains(f) {
		if !strings.HasPrefix(c.Name, "sticky-") {
			continue
		}
		for _, rule := range c.Rules {
			out = append(out, c.Name+": "+rule.Text(f))
		}
	}
	return out
}

// The rules of session affinity: a known client, then a new one, then one that cannot be remembered.
func TestStickyRules(t *testing.T) {
	r := stickyRuleset()
	const (
		mark     = "meta mark set meta mark | 0x00004000"
		priority = "meta priority set "
		frontend = "ip daddr . meta l4proto . th dport"
		client   = "ip saddr . " + frontend
		remember = "update @affinity { " + client + " timeout 5400s : meta priority }"
		all      = "dnat ip to " + frontend + " . meta priority map @sticky-backends"
		here     = "dnat ip to " + frontend + " . meta priority map @sticky-local-backends"
		recall   = priority + client + " map @affinity " + remember + " "
		forget   = "delete @affinity { " + client + " : meta priority }"
		slots    = priority + frontend + " . numgen random mod 3 map @sticky-slots " + remember + " "
		locals   = priority + frontend + " . numgen random mod 2 map @sticky-local-slots " + remember + " "
		host     = "fib saddr type local "
		jump     = "jump sticky-any-3-5400"
	)
	checkLines(t, "rules in table ip", []string{
		"sticky-any-3-5400: " + recall + all,
		"sticky-any-3-5400: " + forget,
		"sticky-any-3-5400: " + slots + all,
		"sticky-any-3-5400: " + all,
		"sticky-cluster-3-5400: ip saddr != @pod-cidrs " + mark,
		"sticky-cluster-3-5400: " + recall + all,
		"sticky-cluster-3-5400: " + forget,
		"sticky-cluster-3-5400: " + slots + all,
		"sticky-cluster-3-5400: " + all,
		"sticky-local-2-of-3-5400: " + host + mark,
		"sticky-local-2-of-3-5400: " + host + jump,
		"sticky-local-2-of-3-5400: ip saddr @pod-cidrs " + jump,
		"sticky-local-2-of-3-5400: " + recall + here,
		"sticky-local-2-of-3-5400: " + forget,
		"sticky-local-2-of-3-5400: " + locals + here,
		"sticky-local-2-of-3-5400: " + here,
	}, stickyChains(r, service.IPv4))
}

// stickyRuleset has a Service with session affinity and policy Local; in IPv6 no endpoint is on this node.
func stickyRuleset() *rules.Ruleset {
	svc := web()
	svc.AffinityTimeout, svc.ExternalLocal = 90*time.Minute, true
	svc.ClusterIPs, svc.ExternalIPs = addrs("10.96.0.10 fd00:96::10"), addrs("198.51.100.1 2001:db8:1::1")
	svc.Ports[0].Endpoints = slices.Concat(ready("n1", "10.244.1.1:80 10.244.1.2:80"),
		ready("n2", "10.244.2.1:80 [fd00::1]:80"))
	r := rules.NewRuleset(testConfig())
	putSvc(r, svc)
	return r
}

// In IPv6 a client is a hash.
func TestStickyRulesIPv6(t *testing.T) {
	r := stickyRuleset()
	const (
		mark      = "meta mark set meta mark | 0x00004000"
		priority  = "meta priority set "
		host      = "fib saddr type local "
		frontend6 = "ip6 daddr . meta l4proto . th dport"
		client6   = "jhash ip6 saddr . " + frontend6 + " mod 4294967295 seed 0x6e667470"
		remember6 = "update @affinity { " + client6 + " timeout 5400s : meta priority }"
		all6      = "dnat ip6 to " + frontend6 + " . meta priority map @sticky-backends"
		slots6    = priority + frontend6 + " . numgen random mod 1 map @sticky-slots " + remember6 + " "
		forget6   = "delete @affinity { " + client6 + " : meta priority }"
		recall6   = priority + client6 + " map @affinity " + remember6 + " "
		jump6     = "jump sticky-any-1-5400"
	)
	checkLines(t, "rules in table ip6, no endpoint here", []string{
		"sticky-any-1-5400: " + recall6 + all6,
		"sticky-any-1-5400: " + forget6,
		"sticky-any-1-5400: " + slots6 + all6,
		"sticky-any-1-5400: " + all6,
		"sticky-cluster-1-5400: ip6 saddr != @pod-cidrs " + mark,
		"sticky-cluster-1-5400: " + recall6 + all6,
		"sticky-cluster-1-5400: " + forget6,
		"sticky-cluster-1-5400: " + slots6 + all6,
		"sticky-cluster-1-5400: " + all6,
		"sticky-local-0-of-1-5400: " + host + mark,
		"sticky-local-0-of-1-5400: " + host + jump6,
		"sticky-local-0-of-1-5400: ip6 saddr @pod-cidrs " + jump6,
		"sticky-local-0-of-1-5400: drop",
	}, stickyChains(r, service.IPv6))
}

// The chain that chooses among all endpoints is there as long as the chain of a shape with policy Local jumps
// to it.
func TestStickyAnyChain(t *testing.T) {
	r := rules.NewRuleset(testConfig())
	policyLocal := func(name, addr, endpoints string) *service.Service {
		svc := named(name, 1, ep1)
		svc.AffinityTimeout, svc.ExternalLocal = time.Hour, true
		svc.ClusterIPs, svc.ExternalIPs = addrs("10.96.0.11"), addrs(addr)
		svc.Ports = append(svc.Ports[:0:0], svc.Ports[0])
		svc.Ports[0].Endpoints = append(ready("n1", endpoints), ready("n2", ep2)...)
		return svc
	}
	one := policyLocal("one", "198.51.100.1", ep1)  // 1 of 2
	none := policyLocal("none", "198.51.100.2", "") // 0 of 1
	two := policyLocal("two", "198.51.100.3", "")   // 0 of 2
	two.Ports[0].Endpoints = ready("n2", ep1+" "+ep2)
	chains := func() []string {
		var out []string
		for _, c := range r.Chains(service.IPv4) {
			if strings.HasPrefix(c.Name, "sticky-any") || strings.HasPrefix(c.Name, "sticky-local") {
				out = append(out, c.Name)
			}
		}
		return out
	}
	two.ClusterIPs, none.ClusterIPs = addrs("10.96.0.12"), addrs("10.96.0.13")
	for _, s := range []*service.Service{one, two, none} {
		putSvc(r, s)
	}
	checkLines(t, "three Services", []string{"sticky-any-1-3600", "sticky-any-2-3600",
		"sticky-local-0-of-1-3600", "sticky-local-0-of-2-3600", "sticky-local-1-of-2-3600"}, chains())
	r.Remove(none.Name)
	r.Remove(one.Name)
	checkLines(t, "one is left before a commit",
		[]string{"sticky-any-2-3600", "sticky-local-0-of-2-3600"}, chains())
	k := fakekernel.New()
	apply(t, k, rules.Diff(r, programmed(k, r)))
	r.Done()
	putSvc(r, one)
	d := r.Changes()
	apply(t, k, d)
	var added []string
	for _, c := range d.Chains {
		added = append(added, c.Name)
	}
	checkLines(t, "another that needs it", []string{"sticky-local-1-of-2-3600"}, added)
	r.Done()
	r.Remove(one.Name)
	r.Remove(two.Name)
	checkLines(t, "chains stay after a commit", []string{"sticky-any-2-3600", "sticky-local-0-of-2-3600",
		"sticky-local-1-of-2-3600"}, chains())
}
