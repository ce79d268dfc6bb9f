package rules_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/nftproxy/nftproxy/internal/fakekernel"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// startCounting is a process that begins with what the kernel has and programs the Service web, with
// counters.
func startCounting(t *testing.T, k *fakekernel.Kernel, c rules.Counters) (*rules.Ruleset, *rules.Delta) {
	t.Helper()
	config := testConfig()
	config.Counters = c
	r := rules.NewRuleset(config)
	r.Put(compileAt(web(), programmed(k, nil).Slots()))
	d := rules.Diff(r, programmed(k, r))
	apply(t, k, d)
	deleteStale(t, k, d)
	r.Done()
	if diff := fakekernel.Difference(tablesOf(r), k.Tables()); diff != "" {
		t.Errorf("tables (-want +got):\n%s", diff)
	}
	return r, d
}

// counting returns the sets of table ip whose elements have counters.
func counting(k *fakekernel.Kernel) (names []string) {
	for name, s := range k.Tables()[service.IPv4].Sets {
		if s.Counter {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// A change of what is counted, for example an upgrade, replaces the maps with their elements in one
// transaction. The tables stay, and with them the clients that the map affinity remembers.
func TestCountersReplaceMaps(t *testing.T) {
	k := fakekernel.New()
	all := []string{"endpoints", "local-endpoints", "services", "sticky-backends", "sticky-local-backends"}
	for _, step := range []struct {
		counters rules.Counters
		want     []string
		changes  bool
	}{
		{rules.Counters{}, nil, true},
		{rules.Counters{Services: true}, []string{"services"}, true},
		{rules.Counters{Services: true, Endpoints: 2}, all, true},
		{rules.Counters{Services: true, Endpoints: math.MaxInt}, all, false},
		{rules.Counters{Services: true, Endpoints: 1}, []string{"services"}, true},
		{rules.Counters{}, nil, true},
	} {
		transactions := k.Transactions()
		_, d := startCounting(t, k, step.counters)
		checkLines(t, "counting", step.want, counting(k))
		if d.Empty() == step.changes || len(d.Reset) > 0 {
			t.Errorf("%+v: wrote %t and replaced tables %v", step.counters, !d.Empty(), d.Reset)
		}
		if n := k.Transactions() - transactions; n > 1 {
			t.Errorf("%+v: %d transactions", step.counters, n)
		}
		affinity := func(s nftables.Set) bool { return s.ID.Kind == nftables.Affinity }
		if transactions > 0 && slices.ContainsFunc(slices.Concat(d.Replace, d.Sets), affinity) {
			t.Errorf("%+v replaces the map affinity", step.counters)
		}
	}
}

// The text of a replacement is what nft would do.
func TestReplaceText(t *testing.T) {
	k := fakekernel.New()
	startCounting(t, k, rules.Counters{})
	_, d := startCounting(t, k, rules.Counters{Services: true})
	text := deltaText(t, d)
	at := 0
	for _, line := range []string{
		"flush table ip nftproxy\n", "delete map ip nftproxy services\n", "add map ip nftproxy services { type " +
			"ipv4_addr . inet_proto . inet_service : classid; counter; }\n", "add rule ip nftproxy services ",
		`add element ip nftproxy services { 10.96.0.10 . tcp . 80 comment "default/web:http" : 4c00:2 }`,
	} {
		next := strings.Index(text[at:], line)
		if next < 0 {
			t.Fatalf("no %q, or in another order, in:\n%s", line, text)
		}
		at += next
	}
	if strings.Contains(text, "delete element") {
		t.Errorf("elements are deleted, which go with their map:\n%s", text)
	}
}

// Endpoints that a change adds can be too many for counters. That counts what is in the kernel, not what
// a configuration would allow.
func TestOutgrewCounters(t *testing.T) {
	k := fakekernel.New()
	for most, want := range map[int]bool{0: false, 1: false, 2: true, 3: true, 4: false} {
		r, _ := startCounting(t, k, rules.Counters{Services: true, Endpoints: most})
		if r.OutgrewCounters() {
			t.Errorf("at most %d: outgrown from the start", most)
		}
		change(t, k, r, timed("more", "10.96.0.11", 0, 2))
		if got := r.OutgrewCounters(); got != want {
			t.Errorf("at most %d, and 4 now: outgrown %t, want %t", most, got, want)
		}
	}
}
