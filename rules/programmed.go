package rules

import (
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Programmed is the state that was read from the kernel: the tables that exist.
type Programmed map[service.Family]*TableState

// TableState is the state of one table.
type TableState struct {
	// Broken says why the table cannot be repaired in place, for example because a set has another layout, a
	// base chain is on another hook, or an interval is not a prefix. Then one transaction replaces the whole
	// table.
	Broken string
	// Chains are the chains of the table, and whether their rules are the desired ones.
	Chains map[string]bool
	// Sets are the sets and maps of the table, and whether their elements have counters.
	Sets map[string]bool
	// Elements are the elements of the fixed sets.
	Elements map[nftables.ElementID]nftables.Element
}

// NewTableState returns an empty TableState.
func NewTableState() *TableState {
	return &TableState{
		Chains:   map[string]bool{},
		Sets:     map[string]bool{},
		Elements: map[nftables.ElementID]nftables.Element{},
	}
}

// Slots returns what frontends have in the kernel, so that a new process continues where the one before it
// stopped.
func (p Programmed) Slots() Slots {
	held, turns := map[service.Frontend]*Held{}, map[service.Frontend]*Held{}
	of := func(e nftables.Element) (*Held, int) { return heldBy(held, e) }
	for _, t := range p {
		for id, e := range t.Elements {
			switch id.Set.Kind {
			case nftables.Endpoints:
				if h, slot := of(e); h.Numbers == nil {
					h.Backends = put(h.Backends, slot, e.DataValues().Backend())
				}
			case nftables.LocalEndpoints:
				if h, slot := of(e); h.LocalNumbers == nil {
					h.Locals = put(h.Locals, slot, e.DataValues().Backend())
				}
			case nftables.StickyBackends:
				h, _ := heldBy(turns, e)
				h.Backends = put(h.Backends, turnOf(e), e.DataValues().Backend())
			case nftables.StickyLocalBackends:
				h, _ := heldBy(turns, e)
				h.Locals = put(h.Locals, turnOf(e), e.DataValues().Backend())
			case nftables.StickySlots:
				h, slot := of(e)
				if h.Numbers == nil {
					h.Backends = nil // slots without numbers that another process added
				}
				h.Numbers = put(h.Numbers, slot, e.DataValues().Class)
				h.Backends = put(h.Backends, slot, t.named(nftables.StickyBackends, e))
			case nftables.StickyLocalSlots:
				h, slot := of(e)
				if h.LocalNumbers == nil {
					h.Locals = nil
				}
				h.LocalNumbers = put(h.LocalNumbers, slot, e.DataValues().Class)
				h.Locals = put(h.Locals, slot, t.named(nftables.StickyLocalBackends, e))
			}
		}
	}
	return func(f service.Frontend) Held {
		if h := held[f]; h != nil {
			return *h
		}
		if h := turns[f]; h != nil {
			return *h
		}
		return Held{}
	}
}

// heldBy returns what the frontend of an element has, and the slot of the element.
func heldBy(in map[service.Frontend]*Held, e nftables.Element) (*Held, int) {
	key := e.KeyValues()
	f := key.Frontend()
	if in[f] == nil {
		in[f] = &Held{}
	}
	return in[f], key.Index
}

// turnOf returns the slot of an element of numbered backends, if they take turns.
func turnOf(e nftables.Element) int { return int(e.KeyValues().Class) - 1 }

// named returns the backend whose number an element of slots has; none, if the kernel does not have it.
func (t *TableState) named(k nftables.SetKind, slot nftables.Element) service.Backend {
	e, ok := t.Elements[nftables.StickyBackendID(k, slot.KeyValues().Frontend(), slot.DataValues().Class)]
	if !ok {
		return service.Backend{}
	}
	return e.DataValues().Backend()
}

// put returns list with a value at an index, and the zero value at indices that have none.
func put[T any](list []T, i int, v T) []T {
	if i < 0 || i >= nftables.MaxSlots {
		return list
	}
	if n := i + 1 - len(list); n > 0 {
		list = append(list, make([]T, n)...)
	}
	list[i] = v
	return list
}
