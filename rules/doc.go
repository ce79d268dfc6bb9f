// Package rules turns Services with their endpoints into nftables chains, sets and elements, and finds the
// changes that bring the kernel from one state to the next.
//
// It is pure, because its result is the whole behaviour of the proxy: it has no kernel, no Kubernetes client,
// no clock and no goroutine, and the same input gives the same bytes. So golden files show each behaviour,
// and random rulesets test it without privilege.
//
// The cost of a change depends on the size of one Service, not on the number of Services: all frontends with
// the same number of endpoints share a chain ([Shape]), endpoints are elements of maps, and an endpoint keeps
// its place in them ([AssignSlots]). scheduler.go has the exceptions.
//
// Start reading at [Compile], which turns one Service into the frontends that it wants. [Ruleset] holds what
// is desired and collects changes, [Diff] compares it with [Programmed], the state that was read from the
// kernel, and both lead to a [Delta], one transaction. The language of chains, sets and elements is package
// rules/nftables.
package rules
