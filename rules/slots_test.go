package rules_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

func TestAssignSlots(t *testing.T) {
	const a, b, c, d = "10.0.0.1:80 ", "10.0.0.2:80 ", "10.0.0.3:80 ", "10.0.0.4:80 "
	tests := []struct {
		name             string
		prev, want, slot string
	}{
		{"none before, none wanted", "", "", ""},
		{"none wanted", a + b, "", ""},
		{"first assignment keeps the order of want", "", a + b, a + b},
		{"unchanged", c + a + b, a + b + c, c + a + b},
		{"newcomer goes to the end", c + a, a + b + c, c + a + b},
		{"the last goes", a + b + c, a + b, a + b},
		{"the first goes, the last fills its hole", a + b + c, b + c, c + b},
		{"replaced in place", a + b + c, a + c + d, a + d + c},
		{"all replaced", a + b, c + d, c + d},
		{"those above come before newcomers", a + b + c, c + d, c + d},
		{"two above fill holes in order", a + b + c + d, c + d, c + d},
		{"holes in prev", "- " + b + "- " + d, b + c + d, d + b + c},
		{"duplicates in prev: the first counts", a + a + b + b, a + b, a + b},
		{"a duplicate above the new size does not count", b + a + b, b, b},
		{"the same address, another port", "10.0.0.1:80 10.0.0.1:81", "10.0.0.1:81", "10.0.0.1:81"},
		{"IPv6", "[fd00::1]:80 [fd00::2]:80", "[fd00::2]:80 [fd00::3]:80", "[fd00::3]:80 [fd00::2]:80"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := rules.AssignSlots(backendList(tt.prev), backendList(tt.want))
			if diff := cmp.Diff(backendStrings(backendList(tt.slot)), backendStrings(got)); diff != "" {
				t.Errorf("slots (-want +got):\n%s", diff)
			}
		})
	}
}

func sorted(list []service.Backend) []service.Backend {
	slices.SortFunc(list, service.Backend.Compare)
	return list
}

func backendStrings(backends []service.Backend) []string {
	out := []string{}
	for _, b := range backends {
		out = append(out, b.String())
	}
	return out
}

// checkSlots checks the properties of slots that are assigned to want after prev.
func checkSlots(t *testing.T, prev, want, got []service.Backend) {
	t.Helper()
	a, b := slices.Clone(want), slices.Clone(got)
	slices.SortFunc(a, service.Backend.Compare)
	slices.SortFunc(b, service.Backend.Compare)
	if !slices.Equal(a, b) {
		t.Fatalf("AssignSlots(%v, %v) = %v: not each wanted backend exactly once", prev, want, got)
	}
	for i, p := range prev[:min(len(prev), len(want))] {
		if slices.Contains(want, p) && slices.Index(prev, p) == i && got[i] != p {
			t.Fatalf("AssignSlots(%v, %v) = %v: %v lost its slot %d", prev, want, got, p, i)
		}
	}
	if again := rules.AssignSlots(got, want); !slices.Equal(again, got) {
		t.Fatalf("AssignSlots(%v, %v) = %v: slots moved though nothing changed", got, want, again)
	}
}

// slotChanges counts the slots that differ: those with another backend, and those that only one side has.
func slotChanges(prev, next []service.Backend) int {
	n := max(len(prev), len(next)) - min(len(prev), len(next))
	for i := range min(len(prev), len(next)) {
		if prev[i] != next[i] {
			n++
		}
	}
	return n
}

func TestAssignSlotsProperties(t *testing.T) {
	for seed := range uint64(2000) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		backend := func(i int) service.Backend {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 80)
		}
		order := rnd.Perm(20)
		var want []service.Backend
		for _, i := range order[:rnd.IntN(15)] {
			want = append(want, backend(i))
		}
		prev := make([]service.Backend, rnd.IntN(20))
		for i := range prev { // with duplicates and, one in four, holes
			if rnd.IntN(4) > 0 {
				prev[i] = backend(rnd.IntN(20))
			}
		}
		want = sorted(want)
		slots := rules.AssignSlots(prev, want)
		checkSlots(t, prev, want, slots)
		checkOneChange(t, rnd, slots, backend(order[19]))
	}
}

// checkOneChange checks how many slots change if one endpoint comes, goes or is replaced.
func checkOneChange(t *testing.T, rnd *rand.Rand, slots []service.Backend, other service.Backend) {
	t.Helper()
	check := func(what string, want []service.Backend, limit int) {
		t.Helper()
		next := rules.AssignSlots(slots, want)
		checkSlots(t, slots, want, next)
		if n := slotChanges(slots, next); n > limit {
			t.Fatalf("one endpoint %s: %d slots of %v change to %v, want at most %d", what, n, slots, next,
				limit)
		}
	}
	check("comes", sorted(append(slices.Clone(slots), other)), 1)
	if len(slots) == 0 {
		return
	}
	i := rnd.IntN(len(slots))
	check("goes", sorted(slices.Delete(slices.Clone(slots), i, i+1)), 2)
	replaced := slices.Clone(slots)
	replaced[i] = other
	check("is replaced", sorted(replaced), 1)
}

func FuzzAssignSlots(f *testing.F) {
	f.Add([]byte{}, []byte{})
	f.Add([]byte{1, 2, 3}, []byte{1, 3})
	f.Add([]byte{0, 1, 1, 0, 9}, []byte{9, 2, 1})
	f.Fuzz(func(t *testing.T, before, after []byte) {
		var prev, want []service.Backend
		for _, b := range before {
			prev = append(prev, fuzzBackend(b))
		}
		for _, b := range after {
			if backend := fuzzBackend(b); backend.IsValid() && !slices.Contains(want, backend) {
				want = append(want, backend)
			}
		}
		checkSlots(t, prev, want, rules.AssignSlots(prev, sorted(want)))
	})
}

// fuzzBackend returns a backend for a byte; for 0, an invalid one.
func fuzzBackend(b byte) service.Backend {
	switch {
	case b == 0:
		return service.Backend{}
	case b%2 == 0:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, b}), uint16(b))
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte{15: b}), 80)
}
