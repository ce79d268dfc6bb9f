package explain

import (
	"fmt"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// slots are the endpoints that the connection chooses from, by slot, as they are wanted.
func (x *explainer) slots() []service.Backend {
	entry, _, _ := x.Ruleset.Entry(x.frontend)
	if x.leadsHere() && x.kind != rules.KindClusterIP {
		return entry.Locals
	}
	return entry.Backends
}

// slotsOf counts the slots of each endpoint.
func slotsOf(slots []service.Backend) map[service.Backend]int {
	counts := map[service.Backend]int{}
	for _, b := range slots {
		counts[b]++
	}
	return counts
}

// scheduler says how the connection chooses, unless it chooses at random among endpoints of the same weight.
func (x *explainer) scheduler() {
	entry, _, _ := x.Ruleset.Entry(x.frontend)
	slots := x.slots()
	n, endpoints := len(slots), len(slotsOf(slots))
	what := fmt.Sprintf("%d slots, of which an endpoint has as many as its weight says", n)
	switch by := entry.Shape.Scheduler; {
	case by == service.RoundRobin && n == endpoints:
		x.report.add("scheduler", by.String(), "connections to this frontend take the endpoints in turn")
	case by == service.RoundRobin:
		x.report.add("scheduler", by.String(), "connections to this frontend take in turn "+what)
	case by == service.Maglev:
		x.report.add("scheduler", by.String(),
			fmt.Sprintf("the address and port of the client choose one of %d slots", n))
	case by == service.SourceHash:
		x.report.add("scheduler", by.String(), fmt.Sprintf("the address of the client chooses one of %d slots", n))
	case n != endpoints:
		x.report.add("scheduler", by.String(), "one of "+what)
	}
}
