package rules

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Entry is one frontend with the treatment of its connections.
type Entry struct {
	Frontend service.Frontend
	Port     string // for people: namespace/name:port
	Shape    Shape
	Backends []service.Backend // by slot
	Locals   []service.Backend // those on this node by slot, for ShapeLocal
	Sticky   *Sticky           // nil: each connection gets any endpoint

	// Serving are all serving endpoints anywhere, also terminating ones, sorted. Flows to them may stay when
	// rules change. For SCTP they are service.Service.Present instead. It is empty for TCP: flows of other
	// protocols continue without a new connection.
	Serving []service.Backend

	Restricted bool // only Sources are admitted
	Sources    []netip.Prefix
}

// stale returns the frontend with the backends whose flows may stay.
func (e *Entry) stale() service.StaleFlows {
	return service.StaleFlows{Frontend: e.Frontend, Service: ownerOf(e.Port), Keep: e.Serving}
}

// staleGone returns a frontend that is gone. port is the name that its entry had.
func staleGone(f service.Frontend, port string) service.StaleFlows {
	return service.StaleFlows{Frontend: f, Service: ownerOf(port), Gone: true}
}

// ownerOf returns the Service from the name of one of its ports, which begins with it: see portName.
func ownerOf(port string) service.Name {
	namespace, rest, _ := strings.Cut(port, "/")
	name, _, _ := strings.Cut(rest, ":")
	return service.Name{Namespace: namespace, Name: name}
}

// stale adds a frontend if flows to it may have become stale between two entries, each of which may be nil.
func (d *Delta) stale(f service.Frontend, before, after *Entry) {
	switch {
	case !staleFlows(f, before, after):
	case after == nil:
		d.Stale = append(d.Stale, staleGone(f, before.Port))
	default:
		d.Stale = append(d.Stale, after.stale())
	}
}

// staleFlows reports whether the frontend may have stale flows: an endpoint is gone, or gets no new flows any
// more, or flows began before the frontend had endpoints.
func staleFlows(f service.Frontend, before, after *Entry) bool {
	switch {
	case before == nil && after == nil:
		return false
	case f.Protocol == service.TCP:
		return false
	case before == nil || after == nil:
		return true
	}
	unserved := len(before.Backends)+len(before.Locals) == 0 && len(after.Backends)+len(after.Locals) > 0
	return unserved || lost(before.Serving, after.Serving) ||
		released(before.Backends, after.Backends) || released(before.Locals, after.Locals)
}

// released reports whether a backend has lost its slot.
func released(before, after []service.Backend) bool {
	for slot, b := range before {
		if (slot >= len(after) || after[slot] != b) && !slices.Contains(after, b) {
			return true
		}
	}
	return false
}

// appendElements appends the elements of the entry.
func (e *Entry) appendElements(out []nftables.Element) []nftables.Element {
	out = e.appendDispatch(out)
	for slot, b := range e.Backends {
		out = append(out, nftables.SlotElement(nftables.Endpoints, e.Frontend, slot, b))
	}
	for slot, b := range e.Locals {
		out = append(out, nftables.SlotElement(nftables.LocalEndpoints, e.Frontend, slot, b))
	}
	return out
}

// size returns the number of elements of the entry.
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
func (e *Entry) appendDispatch(out []nftables.Element) []nftables.Element {
	f := e.Frontend
	chain := e.Shape.ChainName()
	if e.Sticky != nil {
		out = append(out, nftables.FrontendElement(nftables.StickyServices, f, chain, ""),
			nftables.FrontendElement(nftables.RememberMap, f, e.Sticky.RememberChain(), ""))
		chain = e.Sticky.DispatchChain()
	}
	out = append(out, nftables.FrontendElement(nftables.Services, f, chain, e.Port))
	if e.Restricted {
		out = append(out, nftables.FrontendElement(nftables.Firewalled, f, "", ""))
		for _, p := range e.Sources {
			out = append(out, nftables.SourceElement(f, p))
		}
	}
	return out
}
