package rules_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// scheduled is web with three endpoints, two of them here, and the scheduler.
func scheduled(by service.Scheduler) *service.Service {
	svc := web()
	svc.Scheduler, svc.HasScheduler, svc.ExternalLocal = by, true, true
	svc.ExternalIPs = addrs("198.51.100.1")
	svc.Ports[0].Endpoints = slices.Concat(
		ready("n1", "10.244.1.1:80 10.244.1.2:80"), ready("n2", "10.244.2.1:80"))
	return svc
}

// slotsText says how often each backend of web has a slot, in the order of addresses.
func slotsText(slots []service.Backend) string {
	counts := map[netip.Addr]int{}
	for _, b := range slots {
		counts[b.Addr()]++
	}
	var list []string
	for _, a := range addrs("10.244.1.1 10.244.1.2 10.244.2.1") {
		list = append(list, fmt.Sprint(counts[a]))
	}
	return strings.Join(list, " ")
}

// What each scheduler and each weight makes of the ClusterIP and of an external IP with policy Local: the
// chain, and how many slots the three endpoints have in endpoints and in local-endpoints.
func TestSchedulers(t *testing.T) {
	weigh := func(weights ...uint8) func(*service.Service) {
		return func(svc *service.Service) {
			for i, w := range weights {
				svc.Ports[0].Endpoints[i].Weight, svc.Ports[0].Endpoints[i].Drained = w, w == 0
			}
		}
	}
	same := func(*service.Service) {}
	tests := []struct {
		by     service.Scheduler
		change func(*service.Service)
		want   []string
	}{
		{service.Random, same, []string{"cluster-3: 1 1 1, 0 0 0", "local-2-of-3: 1 1 1, 1 1 0"}},
		{service.Random, weigh(5, 5, 5), []string{"cluster-3: 1 1 1, 0 0 0", "local-2-of-3: 1 1 1, 1 1 0"}},
		{service.Random, weigh(4, 2, 6), []string{"cluster-6: 2 1 3, 0 0 0", "local-3-of-6: 2 1 3, 2 1 0"}},
		{service.Random, weigh(2, 2, 1), []string{"cluster-5: 2 2 1, 0 0 0", "local-2-of-5: 2 2 1, 1 1 0"}},
		{service.Random, weigh(0, 2, 1), []string{"cluster-3: 0 2 1, 0 0 0", "local-1-of-3: 0 2 1, 0 1 0"}},
		{service.Random, weigh(0, 0, 1), []string{"cluster-1: 0 0 1, 0 0 0", "local-0-of-1: 0 0 1, 0 0 0"}},
		{service.Random, weigh(0, 0, 0), []string{"no-endpoints: 0 0 0, 0 0 0", "no-endpoints: 0 0 0, 0 0 0"}},
		{service.RoundRobin, same, []string{"rr-cluster-3-10.96.0.10-tcp-80: 1 1 1, 0 0 0",
			"rr-local-2-of-3-198.51.100.1-tcp-80: 1 1 1, 1 1 0"}},
		{service.RoundRobin, weigh(1, 0, 3), []string{"rr-cluster-4-10.96.0.10-tcp-80: 1 0 3, 0 0 0",
			"rr-local-1-of-4-198.51.100.1-tcp-80: 1 0 3, 1 0 0"}},
		{service.RoundRobin, weigh(0, 0, 1), []string{"cluster-1: 0 0 1, 0 0 0", "local-0-of-1: 0 0 1, 0 0 0"}},
		{service.Maglev, same, []string{"mh-cluster-251: 84 84 83, 0 0 0",
			"mh-local-251-of-251: 84 84 83, 126 125 0"}},
		{service.SourceHash, weigh(1, 0, 4), []string{"sh-cluster-251: 50 0 201, 0 0 0",
			"sh-local-1-of-251: 50 0 201, 1 0 0"}},
	}
	for _, tt := range tests {
		svc := scheduled(tt.by)
		tt.change(svc)
		c := compileAt(svc, noSlots)
		var got []string
		for i := range c.Entries {
			e := &c.Entries[i]
			got = append(got, fmt.Sprintf("%s: %s, %s", e.ChainName(), slotsText(e.Backends), slotsText(e.Locals)))
		}
		if diff := cmp.Diff(tt.want, got); diff != "" || len(c.Problems) > 0 {
			t.Errorf("%s, problems %q (-want +got):\n%s", tt.by, c.Problems, diff)
		}
	}
}

// Chains of single frontends do not make a metric with a time series for each.
func TestFrontendsOfRoundRobin(t *testing.T) {
	r := rules.NewRuleset(testConfig())
	for i := range 3 {
		svc := scheduled(service.RoundRobin)
		svc.Name.Name, svc.ExternalIPs = fmt.Sprint(i), nil
		svc.ClusterIPs = []netip.Addr{netip.AddrFrom4([4]byte{10, 96, 1, byte(i)})}
		putSvc(r, svc)
	}
	if diff := cmp.Diff(map[string]int{"rr-cluster-3": 3}, r.Frontends(service.IPv4)); diff != "" {
		t.Errorf("frontends by shape (-want +got):\n%s", diff)
	}
}

// The node's scheduler is that of Services that name none, and none has one together with session affinity.
func TestSchedulerOfNode(t *testing.T) {
	node := service.Node{Name: "n1", Scheduler: service.Maglev}
	named, unnamed, sticky := scheduled(service.Random), scheduled(0), scheduled(service.SourceHash)
	unnamed.HasScheduler, sticky.AffinityTimeout = false, time.Hour
	for _, tt := range []struct {
		svc            *service.Service
		chain, problem string
	}{
		{unnamed, "mh-cluster-251", ""},
		{named, "cluster-3", ""},
		{sticky, "sticky-cluster-3-3600",
			"scheduler sh has no effect with sessionAffinity ClientIP: a client chooses at random once"},
	} {
		c := rules.Compile(tt.svc, node, noSlots, rules.MaxShare)
		if got := c.Entries[0].ChainName(); got != tt.chain || strings.Join(c.Problems, "") != tt.problem {
			t.Errorf("chain %s, problems %q; want %s, %q", got, c.Problems, tt.chain, tt.problem)
		}
	}
	sticky.HasScheduler = false // the node's does without a word
	if c := rules.Compile(sticky, node, noSlots, rules.MaxShare); len(c.Problems) > 0 {
		t.Errorf("problems %q", c.Problems)
	}
}

// A Service that may not have its table gets a smaller one, then none; one that may not have its weights
// does without. It never loses a frontend because of its scheduler, and weight 0 counts always.
func TestSchedulerWithinShare(t *testing.T) {
	drain := func(svc *service.Service) { svc.Ports[0].Endpoints[1].Drained = true }
	heavy := func(svc *service.Service) { svc.Ports[0].Endpoints[0].Weight = 100 }
	tests := []struct {
		name        string
		by          service.Scheduler
		frontends   int
		share       int
		change      func(*service.Service)
		chain       string
		problems    int
		programmed  int
		secondSlots string
	}{
		{"all", service.Maglev, 1, rules.MaxShare, drain, "mh-cluster-251", 0, 1, "251"},
		{"many frontends", service.Maglev, 1 + 300, rules.MaxShare, drain, "mh-cluster-251", 0, 301, "251"},
		{"too many elements", service.Maglev, 1, rules.MinShare, drain, "cluster-2", 1, 1, "2"},
		{"rr", service.RoundRobin, 1, rules.MinShare, drain, "rr-cluster-2-10.96.0.10-tcp-80", 0, 1, "2"},
		{"rr with many frontends", service.RoundRobin, 1 + 300, 5, drain, "cluster-2", 1, 301, "2"},
		{"weights", service.Random, 1, rules.MaxShare, heavy, "cluster-102", 0, 1, "102"},
		{"too heavy", service.Random, 1, rules.MinShare, heavy, "cluster-3", 1, 1, "3"},
	}
	for _, tt := range tests {
		svc := scheduled(tt.by)
		svc.ExternalLocal, svc.ExternalIPs = false, nil
		for i := range tt.frontends - 1 {
			svc.ExternalIPs = append(svc.ExternalIPs, netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}))
		}
		tt.change(svc)
		c := rules.Compile(svc, service.Node{Name: "n1"}, noSlots, tt.share)
		first := c.Entries[0]
		if first.ChainName() != tt.chain || len(c.Problems) != tt.problems || len(c.Entries) != tt.programmed ||
			fmt.Sprint(len(first.Backends)) != tt.secondSlots {
			t.Errorf("%s: chain %s with %d slots, %d frontends, problems %q; want %s with %s, %d, %d problems",
				tt.name, first.ChainName(), len(first.Backends), len(c.Entries), c.Problems,
				tt.chain, tt.secondSlots, tt.programmed, tt.problems)
		}
		if n := elementsOf(c); n > c.Demand.Listed*tt.share+10 {
			t.Errorf("%s: %d elements", tt.name, n)
		}
	}
}

// A table has the size that the share has room for.
func TestTableWithinShare(t *testing.T) {
	svc := product("default", 1, 0, 40) // wants 16,381 slots
	svc.Scheduler, svc.HasScheduler = service.Maglev, true
	for share, want := range map[int]string{
		rules.MaxShare: "mh-cluster-8191", 128: "mh-cluster-4093", 16: "mh-cluster-509", 8: "mh-cluster-251",
		rules.MinShare: "cluster-40",
	} {
		c := rules.Compile(svc, service.Node{}, noSlots, share)
		if got := c.Entries[0].ChainName(); got != want || c.Demand.Elements != 1+16381 {
			t.Errorf("share %d: chain %s, %d elements wanted; want %s", share, got, c.Demand.Elements, want)
		}
	}
}

// Up to so many endpoints a table has the 3 n² slots with which at most 2/n of the clients move, in a
// namespace that does not exhaust its elements: docs/annotations.md has these numbers.
func TestTableIsLargeEnough(t *testing.T) {
	for frontends, most := range map[int]int{1: 52, 2: 26, 3: 18, 4: 18} {
		for n := 2; n <= most; n++ {
			svc := product("default", 1, frontends-1, n)
			svc.Scheduler, svc.HasScheduler = service.Maglev, true
			c := rules.Compile(svc, service.Node{}, noSlots, rules.MaxShare)
			if slots := len(c.Entries[0].Backends); slots < 3*n*n || len(c.Problems) > 0 {
				t.Errorf("%d endpoints at %d addresses: %d slots, problems %q", n, frontends, slots, c.Problems)
			}
		}
	}
}

// Clients that are remembered with an endpoint stay there when its weight changes: it has the same number in
// all of its slots.
func TestAffinityKeepsNumbersWithWeights(t *testing.T) {
	r := rules.NewRuleset(testConfig())
	svc := scheduled(service.Random)
	svc.AffinityTimeout = time.Hour
	numbers := func(weights ...uint8) map[service.Backend]string {
		for i, w := range weights {
			svc.Ports[0].Endpoints[i].Weight = w
		}
		putSvc(r, svc)
		r.Done()
		e, _, _ := r.Entry(service.Frontend{Addr: addrs("10.96.0.10")[0], Protocol: service.TCP, Port: 80})
		out := map[service.Backend]string{}
		for slot, b := range e.Backends {
			n := e.Numbers[slot].String()
			if known, ok := out[b]; ok && known != n {
				t.Errorf("%s has the numbers %s and %s", b, known, n)
			}
			out[b] = n
		}
		return out
	}
	before := numbers(1, 1, 1)
	for _, weights := range [][]uint8{{3, 1, 2}, {1, 2, 1}, {1, 1, 1}} {
		if diff := cmp.Diff(fmt.Sprint(before), fmt.Sprint(numbers(weights...))); diff != "" {
			t.Errorf("numbers with weights %v (-before +now):\n%s", weights, diff)
		}
	}
}
