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
	// Sets are the sets and maps of the table.
	Sets map[string]struct{}
	// Elements are the elements of the fixed sets.
	Elements map[nftables.ElementID]nftables.Element
}

// NewTableState returns an empty TableState.
func NewTableState() *TableState {
	return &TableState{
		Chains:   map[string]bool{},
		Sets:     map[string]struct{}{},
		Elements: map[nftables.ElementID]nftables.Element{},
	}
}

// Slots returns the slots that the kernel has, so that a new process continues where the previous one
// stopped.
func (p Programmed) Slots() Slots {
	backends := map[service.Frontend][]service.Backend{}
	locals := map[service.Frontend][]service.Backend{}
	for _, t := range p {
		for id, e := range t.Elements {
			switch id.Set.Kind {
			case nftables.Endpoints:
				putSlot(backends, e)
			case nftables.LocalEndpoints:
				putSlot(locals, e)
			}
		}
	}
	return func(f service.Frontend) ([]service.Backend, []service.Backend) { return backends[f], locals[f] }
}

// putSlot puts the backend of an element into its slot.
func putSlot(in map[service.Frontend][]service.Backend, e nftables.Element) {
	key := e.KeyValues()
	f := key.Frontend()
	slots := in[f]
	if key.Index >= nftables.MaxSlots {
		return
	}
	if n := key.Index + 1 - len(slots); n > 0 {
		slots = append(slots, make([]service.Backend, n)...)
	}
	slots[key.Index] = e.DataValues().Backend()
	in[f] = slots
}
