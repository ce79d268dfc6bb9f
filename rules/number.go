package rules

import (
	"slices"

	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// number returns the number that a shape has in the map shapes of its table. Those that have no computed
// one get the next free one when they are first asked for.
func (r *Ruleset) number(s tableShape) nftables.Class {
	if n, computed := s.shape.number(); computed {
		return n
	}
	if _, ok := r.numbers[s]; !ok {
		r.takeNumber(s, nftables.NewClass(majorAssigned, 1))
	}
	return r.numbers[s]
}

// takeNumber gives a shape the first free number from n on.
func (r *Ruleset) takeNumber(s tableShape, n nftables.Class) {
	if r.taken[s.family] == nil {
		r.taken[s.family] = takenNumbers{}
	}
	r.numbers[s] = r.taken[s.family].take(n)
}

// adoptNumbers gives shapes without a computed number those that the kernel has for them, and then the others
// free ones, so that a new process writes nothing where nothing has changed.
func (r *Ruleset) adoptNumbers(programmed Programmed) {
	clear(r.numbers)
	clear(r.taken)
	var assigned []tableShape
	for s := range r.shapes {
		if _, computed := s.shape.number(); !computed && !s.shape.isPart() {
			assigned = append(assigned, s)
		}
	}
	if len(assigned) == 0 {
		return
	}
	slices.SortFunc(assigned, tableShape.compare)
	known := map[service.Family]map[string]nftables.Class{}
	for f, t := range programmed {
		known[f] = t.assignedNumbers()
	}
	for _, s := range assigned {
		if n, ok := known[s.family][s.chainName()]; ok {
			r.takeNumber(s, n)
		}
	}
	for _, s := range assigned {
		r.number(s)
	}
}

// assignedNumbers returns the numbers of chains that were assigned; the smallest, if a chain has several.
func (t *TableState) assignedNumbers() map[string]nftables.Class {
	numbers := map[string]nftables.Class{}
	if t.Broken != "" {
		return numbers
	}
	for id, e := range t.Elements {
		if id.Set.Kind != nftables.Shapes {
			continue
		}
		n := id.KeyValues().Class
		if n < nftables.NewClass(majorAssigned, 1) || n >= nftables.NewClass(majorAssigned+0x100, 0) {
			continue
		}
		if known, ok := numbers[e.Chain]; !ok || n < known {
			numbers[e.Chain] = n
		}
	}
	return numbers
}
