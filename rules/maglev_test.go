package rules

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/nftproxy/nftproxy/rules/service"
)

// somePods returns n backends in the order of their addresses.
func somePods(n int) []service.Backend {
	var list []service.Backend
	for i := range n {
		addr := netip.AddrFrom4([4]byte{10, 244, byte(i >> 8), byte(i)})
		list = append(list, netip.AddrPortFrom(addr, 8080))
	}
	return list
}

func slotCounts(table []service.Backend) map[service.Backend]int {
	counts := map[service.Backend]int{}
	for _, b := range table {
		counts[b]++
	}
	return counts
}

// The table is the same in every process and on every node: a new version must not make another one.
func TestMaglevIsFixed(t *testing.T) {
	backends := append(somePods(2), netip.MustParseAddrPort("[fd00::1]:80"))
	var got string
	for _, b := range maglev(backends, nil, 251)[:40] {
		got += fmt.Sprint(slices.Index(backends, b))
	}
	const want = "2220022211001112201111110022221000012200"
	if got != want {
		t.Errorf("slots 0 to 39 have backends %s, want %s", got, want)
	}
}

// Every backend has the same number of slots, give or take one.
func TestMaglevIsEven(t *testing.T) {
	for _, n := range []int{2, 3, 10, 81, 1000} {
		size := tableSize(n, n, 65535)
		counts := slotCounts(maglev(somePods(n), nil, size))
		for b, slots := range counts {
			if slots < size/n || slots > size/n+1 || len(counts) != n {
				t.Errorf("%d backends: %s has %d slots of %d", n, b, slots, size)
			}
		}
	}
}

// If one of n backends goes or comes, at most 2/n of the slots have another backend than before, up to 147
// backends; with more, no table is large enough.
func TestMaglevMovesLittle(t *testing.T) {
	for _, n := range []int{2, 3, 5, 6, 10, 18, 19, 36, 37, 73, 100, 147} {
		backends, worst := somePods(n), 0
		size := tableSize(n, n, 65535)
		before := maglev(backends, nil, size)
		for i := 0; i < n; i += max(1, n/10) {
			after := maglev(slices.Delete(slices.Clone(backends), i, i+1), nil, size)
			moved := 0
			for slot := range before {
				if before[slot] != after[slot] {
					moved++
				}
			}
			worst = max(worst, moved)
		}
		t.Logf("%d backends, %d slots: at most %.2f/n move", n, size, float64(worst*n)/float64(size))
		if worst*n > 2*size {
			t.Errorf("%d backends: %d of %d slots move", n, worst, size)
		}
	}
}

// A backend has slots in proportion to its weight, also if the table has fewer than one round.
func TestMaglevWeights(t *testing.T) {
	backends := somePods(5)
	tests := []struct {
		weights []int
		size    int
		want    []int
	}{
		{[]int{1, 2, 3, 4, 10}, 1021, []int{51, 102, 153, 204, 511}},
		{[]int{100, 99, 98, 97, 96}, 1021, []int{208, 206, 204, 202, 200}},
		{[]int{100, 100, 100, 100, 1}, 1021, []int{254, 255, 254, 255, 2}},
	}
	for _, tt := range tests {
		w := weights{}
		for i, n := range tt.weights {
			w[backends[i]] = n
		}
		counts := slotCounts(maglev(backends, w, tt.size))
		for i, b := range backends {
			if diff := counts[b] - tt.want[i]; diff < -2 || diff > 2 {
				t.Errorf("weights %v: backend %d has %d slots, want about %d", tt.weights, i, counts[b], tt.want[i])
			}
		}
	}
}

func TestTableSize(t *testing.T) {
	tests := []struct{ n, weight, room, want int }{
		{2, 2, 65535, 251}, {5, 5, 65535, 251}, {6, 6, 65535, 1021}, {18, 18, 65535, 1021},
		{19, 19, 65535, 4093}, {147, 147, 65535, 65521}, {13104, 13104, 65535, 65521},
		{13105, 13105, 65535, 0},
		{6, 6, 1020, 509}, {6, 6, 508, 251}, {50, 50, 250, 0}, {50, 50, 508, 251}, {51, 51, 508, 0},
		{2, 2, 250, 0}, {2, 2, -1, 0},
		{5, 401, 65535, 1021}, {5, 401, 1020, 509}, {5, 401, 508, 0}, // a slot for each turn
	}
	for _, tt := range tests {
		if got := tableSize(tt.n, tt.weight, tt.room); got != tt.want {
			t.Errorf("%d endpoints of weight %d, room for %d: %d slots, want %d",
				tt.n, tt.weight, tt.room, got, tt.want)
		}
	}
}

// A heavy backend has its turns at regular intervals, and the common divisor of weights does not count.
func TestInterleave(t *testing.T) {
	pods := somePods(3)
	tests := []struct {
		weights [3]int
		want    string
	}{
		{[3]int{4, 2, 1}, "0102010"},
		{[3]int{40, 20, 10}, "0102010"},
		{[3]int{5, 1, 1}, "0001200"},
		{[3]int{1, 1, 2}, "2012"},
	}
	for _, tt := range tests {
		w := weights{}
		for i, n := range tt.weights {
			w[pods[i]] = n
		}
		reduced, sum := w.among(pods)
		var got string
		for _, b := range interleave(pods, reduced) {
			got += fmt.Sprint(slices.Index(pods, b))
		}
		if got != tt.want || sum != len(tt.want) {
			t.Errorf("weights %v: %s, sum %d, want %s", tt.weights, got, sum, tt.want)
		}
	}
	same := weights{pods[0]: 7, pods[1]: 7, pods[2]: 7}
	if reduced, sum := same.among(pods); reduced != nil || sum != 3 {
		t.Errorf("equal weights: %v, sum %d", reduced, sum)
	}
}
