package rules

import "net/netip"

// Entry is one frontend and what happens to its connections.
type Entry struct {
	Frontend Frontend
	Port     string // the ServicePort, for people: namespace/name:port
	Shape    Shape
	Backends []Backend // by slot
	Locals   []Backend // those on this node by slot, for ShapeLocal
	Sticky   *Sticky   // nil: every connection chooses anew

	// Serving are all endpoints anywhere that serve, terminating ones included: the
	// flows that may stay when rules change. It is kept for protocols other than TCP,
	// whose flows go on without a new connection, and sorted.
	Serving []Backend

	Restricted bool // only Sources are admitted
	Sources    []netip.Prefix
}

// Stale is a frontend that flows may lead from to where they must not any more.
type Stale struct {
	Frontend Frontend
	Keep     []Backend // flows to these may stay
}

// stale returns what flows to the frontend may stay.
func stale(f Frontend, e *Entry) Stale {
	if e == nil {
		return Stale{Frontend: f}
	}
	return Stale{f, e.Serving}
}

// staleFlows returns whether flows to the frontend may have become stale between
// before and after, either of which may be nil.
func staleFlows(f Frontend, before, after *Entry) bool {
	switch {
	case f.Protocol == TCP:
		return false
	case before == nil || after == nil:
		return true
	}
	unserved := len(before.Backends)+len(before.Locals) == 0 && len(after.Backends)+len(after.Locals) > 0
	return unserved || lost(before.Serving, after.Serving)
}

// appendElements appends the elements of the entry.
func (e *Entry) appendElements(out []Element) []Element {
	out = e.appendDispatch(out)
	for slot, b := range e.Backends {
		out = append(out, slotElement(Endpoints, e.Frontend, slot, b))
	}
	for slot, b := range e.Locals {
		out = append(out, slotElement(LocalEndpoints, e.Frontend, slot, b))
	}
	return out
}

// size returns how many elements the entry has.
func (e *Entry) size() int {
	n := 1 + len(e.Backends) + len(e.Locals)
	if e.Sticky != nil {
		n += 2
	}
	if e.Restricted {
		n += 1 + len(e.Sources)
	}
	return n
}

// appendDispatch appends the elements that lead to the chain that chooses an endpoint.
func (e *Entry) appendDispatch(out []Element) []Element {
	f := e.Frontend
	chain := e.Shape.ChainName()
	if e.Sticky != nil {
		out = append(out, frontendElement(StickyServices, f, chain, ""),
			frontendElement(RememberMap, f, e.Sticky.RememberChain(), ""))
		chain = e.Sticky.DispatchChain()
	}
	out = append(out, frontendElement(Services, f, chain, e.Port))
	if e.Restricted {
		out = append(out, frontendElement(Firewalled, f, "", ""))
		for _, p := range e.Sources {
			out = append(out, sourceElement(f, p))
		}
	}
	return out
}
