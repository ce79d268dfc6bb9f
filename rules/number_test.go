package rules_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/internal/fakekernel"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// numberTexts returns numbers as nft prints them.
func numberTexts(numbers []nftables.Class) string {
	var out []string
	for _, n := range numbers {
		out = append(out, n.String())
	}
	return strings.Join(out, " ")
}

func TestAssignNumbers(t *testing.T) {
	const a, b, c = "10.0.0.1:80 ", "10.0.0.2:80 ", "10.0.0.3:80 "
	const a81, a82 = "10.0.0.1:81 ", "10.0.0.1:82 "
	const same, alike = "[fd00::22:9ee9:6eb5]:80 ", "[fd00::1f:46c5:737f]:80 " // with the same hash
	tests := []struct {
		name    string
		prev    string // backends by slot
		numbers []nftables.Class
		slots   string
		want    string
	}{
		{"none", "", nil, "", ""},
		{"an IPv4 address is its number", "", nil, c + a, "a00:3 a00:1"},
		{"an IPv6 address has a hash", "", nil, "[fd00::1]:80 [fd00::2]:443", "9402:5ccb 9502:5e5e"},
		{"IPv6 addresses with the same hash", "", nil, same + alike, "1f5:3d5e 1f5:3d5f"},
		{"several ports on one address", "", nil, a + a81 + a82, "a00:1 a00:2 a00:3"},
		{"the next address is taken", "", nil, a + a81 + b + c, "a00:1 a00:2 a00:3 a00:4"},
		{"in the order of slots", "", nil, b + a81 + a + c, "a00:2 a00:1 a00:3 a00:4"},
		{"numbers do not depend on slots", a + b, []nftables.Class{0x0a000001, 0x0a000002}, b + a, "a00:2 a00:1"},
		{"one goes", a + a81 + a82, []nftables.Class{7, 8, 9}, a82 + a81, "0:9 0:8"},
		{"one comes", a81, []nftables.Class{0x0a000001}, a81 + a, "a00:1 a00:2"},
		{"one is replaced on its address", a, []nftables.Class{0x0a000001}, a81, "a00:1"},
		{"a newcomer does not get the number of one that stays",
			a81 + a82, []nftables.Class{0x0a000001, 0x0a000002}, a + a82 + b, "a00:1 a00:2 a00:3"},
		{"0 is not a number", "", nil, "0.0.0.0:1 0.0.0.0:2 [fd00::438:6c58]:80", "0:1 0:2 0:3"},
		{"the first number comes after the last", "", nil,
			"255.255.255.255:1 255.255.255.255:2 [fd00::2:310a:30da]:1", "root 0:1 0:2"},
		{"holes", "- " + a + "- ", []nftables.Class{0, 5, 6}, a + b, "0:5 a00:2"},
		{"a backend without a number", a + b, []nftables.Class{0, 6}, a + b, "a00:1 0:6"},
		{"two backends with one number: the first slot keeps it",
			a + b, []nftables.Class{5, 5}, a + b, "0:5 a00:2"},
		{"without session affinity before", a + b, nil, b + a, "a00:2 a00:1"},
		{"more backends than numbers", a + b, []nftables.Class{5}, a + b, "0:5 a00:2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			held := rules.Held{Backends: backendList(tt.prev), Numbers: tt.numbers}
			got := rules.AssignNumbers(held, backendList(tt.slots))
			if diff := cmp.Diff(tt.want, numberTexts(got)); diff != "" {
				t.Errorf("numbers (-want +got):\n%s", diff)
			}
		})
	}
}

// sticky is a Service with session affinity and both policies, whose endpoints change.
func sticky(endpoints []service.Endpoint) *service.Service {
	svc := web()
	svc.AffinityTimeout, svc.ExternalLocal = time.Hour, true
	svc.ClusterIPs, svc.ExternalIPs = addrs("10.96.0.10 fd00:96::10"), addrs("198.51.100.1 2001:db8:1::1")
	svc.Ports[0].Endpoints = endpoints
	return svc
}

// An endpoint keeps its number while others come and go, also when another process goes on with what the
// kernel has.
func TestNumbersStayProperties(t *testing.T) {
	for seed := range uint64(200) {
		g := newGenerator(seed)
		r, k := rules.NewRuleset(testConfig()), fakekernel.New()
		apply(t, k, rules.Diff(r, rules.Programmed{}))
		r.Done()
		var endpoints []service.Endpoint
		for range 10 {
			before := map[service.Frontend]rules.Held{}
			for f := range r.Owners() {
				before[f] = r.Slots(f)
			}
			kept := some(g, len(endpoints), endpoints...)
			endpoints = slices.Concat(kept, ready(pickOne(g, "n1", "n2"), crowded(g)))
			slots := r.Slots
			if g.chance(30) { // another process
				slots, r = programmed(k, nil).Slots(), rules.NewRuleset(testConfig())
			}
			r.Put(compileAt(sticky(endpoints), slots))
			d := rules.Diff(r, programmed(k, r))
			apply(t, k, d)
			deleteStale(t, k, d)
			r.Done()
			for f := range r.Owners() {
				after := r.Slots(f)
				checkNumbers(t, before[f].Backends, before[f].Numbers, after.Backends, after.Numbers)
				checkNumbers(t, before[f].Locals, before[f].LocalNumbers, after.Locals, after.LocalNumbers)
			}
		}
	}
}

// crowded returns backends of few addresses next to each other, so that they compete for numbers.
func crowded(g generator) string {
	var b strings.Builder
	for range g.IntN(6) {
		fmt.Fprintf(&b, "%s:%d ", pickOne(g, "0.0.0.0", "10.244.0.1", "10.244.0.2", "10.244.0.3", "255.255.255.255",
			"[fd00::22:9ee9:6eb5]", "[fd00::1f:46c5:737f]"), 1+g.IntN(4))
	}
	return b.String()
}

// checkNumbers checks that each backend has a number of its own, the same as before.
func checkNumbers(t *testing.T, was []service.Backend, had []nftables.Class, is []service.Backend,
	has []nftables.Class) {
	t.Helper()
	if len(has) != len(is) {
		t.Fatalf("%d numbers of %d backends", len(has), len(is))
	}
	owner := map[nftables.Class]service.Backend{}
	for slot, n := range has {
		if other, taken := owner[n]; taken || n == 0 {
			t.Fatalf("%s has number %s, which is none or that of %s", is[slot], n, other)
		}
		owner[n] = is[slot]
	}
	for slot, b := range was {
		if i := slices.Index(is, b); i >= 0 && len(had) > 0 && has[i] != had[slot] {
			t.Fatalf("%s had number %s and has %s", b, had[slot], has[i])
		}
	}
}

// Numbers of as many backends as there can be take a moment, wherever they compete: a search that goes over
// all numbers that are taken, for each backend, takes a minute.
func TestManyNumbers(t *testing.T) {
	for _, first := range []string{"10.0.0.0", "255.255.255.255", "255.255.0.0", "fd00::2:310a:30da"} {
		for _, ports := range []int{1, 2, 100, nftables.MaxSlots} {
			addr := netip.MustParseAddr(first)
			var slots []service.Backend
			for i := range nftables.MaxSlots {
				if i > 0 && i%ports == 0 {
					if addr = addr.Next(); !addr.IsValid() {
						addr = netip.MustParseAddr("0.0.0.0")
					}
				}
				slots = append(slots, netip.AddrPortFrom(addr, uint16(1+i%ports)))
			}
			rand.New(rand.NewPCG(1, 1)).Shuffle(len(slots)/2, func(i, j int) {
				slots[i], slots[j] = slots[j], slots[i]
			})
			numbers := rules.AssignNumbers(rules.Held{}, slots)
			checkNumbers(t, nil, nil, slots, numbers)
			again := rules.AssignNumbers(rules.Held{Backends: slots, Numbers: numbers}, slots)
			if !slices.Equal(numbers, again) {
				t.Fatalf("%d ports from %s on: numbers change though no endpoint does", ports, first)
			}
		}
	}
}

// Shapes without session affinity have different numbers, in the ranges of their kinds. No number is none,
// and none is the handle of a queueing discipline that the kernel chooses, which begin with 8001.
func TestShapeNumbers(t *testing.T) {
	first, end := rules.StickyRange()
	ranges := map[rules.ShapeKind][2]nftables.Class{
		rules.ShapeReject: {0x4f000000, 0x4f000000}, rules.ShapeDrop: {0x4d000000, 0x4d000000},
		rules.ShapeCluster: {0x4c000001, 0x4c00ffff}, rules.ShapeExternal: {0x4e000001, 0x4e00ffff},
		rules.ShapeLocal: {0x50000001, 0x5fffffff},
	}
	taken := map[nftables.Class]rules.Shape{}
	check := func(s rules.Shape) {
		n, ok := s.Number()
		if other, clash := taken[n]; clash || !ok {
			t.Fatalf("%s has number %s, which is that of %s", s.ChainName(), n, other.ChainName())
		}
		taken[n] = s
		if in := ranges[s.Kind]; n < in[0] || n > in[1] || n >= first && n < end || n >= 0x80010000 {
			t.Fatalf("%s has number %s", s.ChainName(), n)
		}
	}
	check(rules.Shape{Kind: rules.ShapeReject})
	check(rules.Shape{Kind: rules.ShapeDrop})
	for n := 1; n <= nftables.MaxSlots; n++ {
		check(rules.Shape{Kind: rules.ShapeCluster, N: n})
		check(rules.Shape{Kind: rules.ShapeExternal, N: n})
	}
	for _, n := range []int{1, 2, 255, 256, 257, 4095, 4096, 32768, nftables.MaxSlots - 1, nftables.MaxSlots} {
		for locals := range nftables.MaxLocalSlots + 1 {
			check(rules.Shape{Kind: rules.ShapeLocal, N: n, Locals: locals})
		}
	}
	for _, locals := range []int{0, 1, 2, 255, 256, 257, nftables.MaxLocalSlots - 1, nftables.MaxLocalSlots} {
		for n := 1; n <= nftables.MaxSlots; n++ {
			if s := (rules.Shape{Kind: rules.ShapeLocal, N: n, Locals: locals}); taken[mustNumber(t, s)] != s {
				check(s)
			}
		}
	}
	if n, ok := (rules.Shape{Kind: rules.ShapeCluster, N: 1, Timeout: time.Second}).Number(); ok {
		t.Errorf("a shape with session affinity has the number %s without a Ruleset", n)
	}
}

func mustNumber(t *testing.T, s rules.Shape) nftables.Class {
	t.Helper()
	n, ok := s.Number()
	if !ok {
		t.Fatalf("%s has no number", s.ChainName())
	}
	return n
}

// What a person reads: the kind before the colon, the endpoints behind it, in hexadecimal.
func TestShapeNumberTexts(t *testing.T) {
	for _, tt := range []struct {
		shape rules.Shape
		want  string
	}{
		{rules.Shape{Kind: rules.ShapeReject}, "4f00:0"},
		{rules.Shape{Kind: rules.ShapeDrop}, "4d00:0"},
		{rules.Shape{Kind: rules.ShapeCluster, N: 3}, "4c00:3"},
		{rules.Shape{Kind: rules.ShapeExternal, N: nftables.MaxSlots}, "4e00:ffff"},
		{rules.Shape{Kind: rules.ShapeLocal, N: 16}, "5000:10"},
		{rules.Shape{Kind: rules.ShapeLocal, N: 3, Locals: 1}, "5001:3"},
		{rules.Shape{Kind: rules.ShapeLocal, N: nftables.MaxSlots, Locals: nftables.MaxLocalSlots}, "5fff:ffff"},
	} {
		if got := mustNumber(t, tt.shape).String(); got != tt.want {
			t.Errorf("%s has number %s, want %s", tt.shape.ChainName(), got, tt.want)
		}
	}
}
