package rules

import (
	"iter"
	"slices"

	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Counters says which new connections the kernel counts.
type Counters struct {
	// Services counts the connections to each frontend.
	Services bool
	// Endpoints counts the connections to each endpoint while there are at most so many: elements of the maps
	// that lead to endpoints, in all families together.
	Endpoints int
}

// lookedUpOnce reports whether the rules find exactly one element of these maps for each connection to an
// endpoint.
func lookedUpOnce(k nftables.SetKind) bool {
	switch k {
	case nftables.Endpoints, nftables.LocalEndpoints, nftables.StickyBackends, nftables.StickyLocalBackends:
		return true
	}
	return false
}

// counted reports whether the elements of a set have counters.
func (r *Ruleset) counted(k nftables.SetKind) bool {
	return k == nftables.Services && r.config.Counters.Services || lookedUpOnce(k) && r.fitsCounters()
}

// fitsCounters reports whether elements of endpoints may have counters.
func (r *Ruleset) fitsCounters() bool {
	most := r.config.Counters.Endpoints
	return most > 0 && r.endpoints() <= most
}

// OutgrewCounters reports whether elements of endpoints got counters when the ruleset was compared last, and
// are too many now. The next [Diff] of a ruleset takes them away.
func (r *Ruleset) OutgrewCounters() bool { return r.countsEndpoints && !r.fitsCounters() }

// endpoints returns the number of elements that lead to endpoints.
func (r *Ruleset) endpoints() (n int) {
	for id, elements := range r.counts {
		if lookedUpOnce(id.Kind) {
			n += elements
		}
	}
	return n
}

// Replaced returns the families of the sets to replace.
func (d *Delta) Replaced() (families []service.Family) {
	for _, s := range d.Replace {
		families = append(families, s.ID.Family)
	}
	slices.Sort(families)
	return slices.Compact(families)
}

// Counting reports whether the kernel counts the connections to frontends, and those to endpoints, since the
// ruleset was compared last.
func (r *Ruleset) Counting() (frontends, endpoints bool) {
	return r.config.Counters.Services, r.countsEndpoints
}

// Counted yields the elements that count the connections to the endpoints of a frontend, if the kernel counts
// those, each with its endpoint. An endpoint may come twice.
func (e *Entry) Counted() iter.Seq2[nftables.ElementID, service.Backend] {
	return func(yield func(nftables.ElementID, service.Backend) bool) {
		for _, c := range e.choices() {
			for slot, b := range c.bySlot {
				id := c.element(e.Frontend, slot).ElementID
				if c.numbers != nil {
					id = nftables.StickyBackendID(c.backends, e.Frontend, c.numbers[slot])
				}
				if !yield(id, b) {
					return
				}
			}
		}
	}
}
