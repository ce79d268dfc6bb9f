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

	Restricted bool // only Sources are admitted
	Sources    []netip.Prefix
}

// appendElements appends the elements of the entry.
func (e *Entry) appendElements(out []Element) []Element {
	if e == nil {
		return out
	}
	f := e.Frontend
	chain := e.Shape.ChainName()
	if e.Sticky != nil {
		out = append(out, frontendElement(StickyServices, f, chain, ""),
			frontendElement(RememberMap, f, e.Sticky.RememberChain(), ""))
		chain = e.Sticky.DispatchChain()
	}
	out = append(out, frontendElement(Services, f, chain, e.Port))
	for slot, b := range e.Backends {
		out = append(out, slotElement(Endpoints, f, slot, b))
	}
	for slot, b := range e.Locals {
		out = append(out, slotElement(LocalEndpoints, f, slot, b))
	}
	if e.Restricted {
		out = append(out, frontendElement(Firewalled, f, "", ""))
		for _, p := range e.Sources {
			out = append(out, sourceElement(f, p))
		}
	}
	return out
}
