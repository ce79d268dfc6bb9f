package rules

import (
	"cmp"
	"slices"

	"github.com/nftproxy/nftproxy/rules/service"
)

// weights has the weights of backends other than 1. It is nil if all weights are the same.
type weights map[service.Backend]int

func (w weights) of(b service.Backend) int {
	if n, ok := w[b]; ok {
		return n
	}
	return 1
}

// weightsOf returns the weights of endpoints. If a backend is listed twice, the first endpoint counts.
func weightsOf(all []service.Endpoint) weights {
	var w weights
	for i := range all {
		ep := &all[i]
		if _, known := w[ep.Backend]; known || ep.Weight <= 1 {
			continue
		}
		if w == nil {
			w = weights{}
		}
		w[ep.Backend] = int(ep.Weight)
	}
	return w
}

// among returns the weights of some backends without their common divisor, and their sum.
func (w weights) among(backends []service.Backend) (weights, int) {
	if w == nil || len(backends) == 0 {
		return nil, len(backends)
	}
	divisor := 0
	for _, b := range backends {
		for n := w.of(b); n != 0; { // Euclid's algorithm
			divisor, n = n, divisor%n
		}
	}
	sum, reduced := 0, weights{}
	for _, b := range backends {
		reduced[b] = w.of(b) / divisor
		sum += reduced[b]
	}
	if sum == len(backends) {
		return nil, sum
	}
	return reduced, sum
}

// turns returns the indices of backends in the order in which they take turns: each as often as its weight
// says, and at regular intervals, as with IPVS. Of weight w it has one turn in each w-th part of the list.
func turns(backends []service.Backend, w weights) []int {
	order := make([]int, len(backends))
	for i := range order {
		order[i] = i
	}
	if w == nil {
		return order
	}
	type turn struct {
		of     int // index
		at, in int // the middle of its part of the list is at (2*at + 1) / (2*in)
	}
	var list []turn
	for i, b := range backends {
		for at := range w.of(b) {
			list = append(list, turn{i, at, w.of(b)})
		}
	}
	slices.SortStableFunc(list, func(a, b turn) int {
		return cmp.Or(cmp.Compare((2*a.at+1)*b.in, (2*b.at+1)*a.in), cmp.Compare(b.in, a.in))
	})
	order = order[:0]
	for _, t := range list {
		order = append(order, t.of)
	}
	return order
}

// interleave returns the backends in the order of their turns.
func interleave(backends []service.Backend, w weights) []service.Backend {
	var slots []service.Backend
	for _, i := range turns(backends, w) {
		slots = append(slots, backends[i])
	}
	return slots
}
