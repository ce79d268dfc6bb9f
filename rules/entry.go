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
	Kind     Kind
	Port     string // for people: namespace/name:port
	Shape    Shape
	Backends []service.Backend // by slot
	Locals   []service.Backend // those on this node by slot, for ShapeLocal
	// Numbers and LocalNumbers name Backends and Locals in the same order, with session affinity.
	Numbers, LocalNumbers []nftables.Class

	// Serving are all serving endpoints anywhere, also terminating ones, sorted. Flows to them may stay when
	// rules change. For SCTP they are service.Service.Present instead. It is empty for TCP: flows of other
	// protocols continue without a new connection.
	Serving []service.Backend

	Restricted bool // only Sources are admitted
	Sources    []netip.Prefix
}

// stale returns the frontend with the backends whose flows may stay.
func (e *Entry) stale() service.StaleFlows {
	return service.StaleFlows{Frontend: e.Frontend, Service: OwnerOf(e.Port), Keep: e.Serving}
}

// staleGone returns a frontend that is gone. port is the name that its entry had.
func staleGone(f service.Frontend, port string) service.StaleFlows {
	return service.StaleFlows{Frontend: f, Service: OwnerOf(port), Gone: true}
}

// OwnerOf returns the Service from the name of one of its ports, which begins with it: see PortName. The name
// is also the comment of the elements that lead to the port.
func OwnerOf(port string) service.Name {
	owner, _ := SplitPort(port)
	return owner
}

// SplitPort returns the Service from the name of one of its ports, and what the Service calls the port: ""
// if it has no name there, or both names are too long for a comment.
func SplitPort(port string) (owner service.Name, name string) {
	namespace, rest, _ := strings.Cut(port, "/")
	of, name, _ := strings.Cut(rest, ":")
	return service.Name{Namespace: namespace, Name: of}, name
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

// lost reports whether some of before are not in after; both are sorted.
func lost(before, after []service.Backend) bool {
	return slices.ContainsFunc(before, func(b service.Backend) bool {
		_, ok := slices.BinarySearchFunc(after, b, service.Backend.Compare)
		return !ok
	})
}

// chosen are the backends of an entry that one kind of traffic chooses from, and the maps that they are in.
type chosen struct {
	slots, backends nftables.SetKind
	bySlot          []service.Backend
	numbers         []nftables.Class // nil: without session affinity
	turns           bool             // the slots are in backends, and their numbers begin with 1
}

// set returns the map that has the slots.
func (c chosen) set() nftables.SetKind {
	if c.turns {
		return c.backends
	}
	return c.slots
}

// element returns the element of a slot, without session affinity.
func (c chosen) element(f service.Frontend, slot int) nftables.Element {
	if c.turns {
		return nftables.StickyBackendElement(c.backends, f, nftables.Class(slot+1), c.bySlot[slot])
	}
	return nftables.SlotElement(c.slots, f, slot, c.bySlot[slot])
}

// choices returns the backends of the entry in maps without and with session affinity, and in turn. Those
// that it does not use are empty.
func (e *Entry) choices() [6]chosen {
	all := [6]chosen{
		{slots: nftables.Endpoints}, {slots: nftables.LocalEndpoints},
		{slots: nftables.StickySlots, backends: nftables.StickyBackends},
		{slots: nftables.StickyLocalSlots, backends: nftables.StickyLocalBackends},
		{backends: nftables.StickyBackends, turns: true}, {backends: nftables.StickyLocalBackends, turns: true},
	}
	first := 0
	switch {
	case e.sticky():
		first = 2
	case e.Shape.Scheduler == service.RoundRobin:
		first = 4
	}
	all[first].bySlot, all[first].numbers = e.Backends, e.Numbers
	all[first+1].bySlot, all[first+1].numbers = e.Locals, e.LocalNumbers
	return all
}

// byNumber returns the backends by their numbers.
func (c chosen) byNumber() map[nftables.Class]service.Backend {
	out := make(map[nftables.Class]service.Backend, len(c.numbers))
	for slot, n := range c.numbers {
		out[n] = c.bySlot[slot]
	}
	return out
}

// distinct returns how many backends have numbers: with weights, one has the same in several slots.
func distinct(numbers []nftables.Class) int {
	if numbers == nil {
		return 0
	}
	seen := make(map[nftables.Class]struct{}, len(numbers))
	for _, n := range numbers {
		seen[n] = struct{}{}
	}
	return len(seen)
}

func (e *Entry) sticky() bool { return e.Shape.Timeout > 0 }

// appendElements appends the elements of the entry, whose shape has the number.
func (e *Entry) appendElements(out []nftables.Element, shape nftables.Class) []nftables.Element {
	out = e.appendFrontend(out, shape)
	for _, c := range e.choices() {
		var seen map[nftables.Class]struct{}
		if c.numbers != nil {
			seen = make(map[nftables.Class]struct{}, len(c.numbers))
		}
		for slot, b := range c.bySlot {
			if c.numbers == nil {
				out = append(out, c.element(e.Frontend, slot))
				continue
			}
			n := c.numbers[slot]
			out = append(out, nftables.StickySlotElement(c.slots, e.Frontend, slot, n))
			if _, twice := seen[n]; !twice {
				seen[n] = struct{}{}
				out = append(out, nftables.StickyBackendElement(c.backends, e.Frontend, n, b))
			}
		}
	}
	return out
}

// size returns the number of elements of the entry.
func (e *Entry) size() int {
	n := 1 + len(e.Backends) + len(e.Locals) + distinct(e.Numbers) + distinct(e.LocalNumbers)
	if e.Restricted {
		n += 1 + len(e.Sources)
	}
	return n
}

// appendFrontend appends the elements that lead to the chain that chooses an endpoint.
func (e *Entry) appendFrontend(out []nftables.Element, shape nftables.Class) []nftables.Element {
	out = append(out, nftables.ServiceElement(e.Frontend, shape, e.Port))
	if e.Restricted {
		out = append(out, nftables.FrontendElement(nftables.Firewalled, e.Frontend))
		for _, p := range e.Sources {
			out = append(out, nftables.SourceElement(e.Frontend, p))
		}
	}
	return out
}
