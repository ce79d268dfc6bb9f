package rules

import (
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Programmed is what was read from the kernel: the tables that are there.
type Programmed map[service.Family]*TableState

// TableState is one table as it was read.
type TableState struct {
	// Broken says that the table holds something that cannot be repaired in place:
	// a set of another layout, a base chain on another hook, an interval that is no
	// prefix. The table is then replaced as a whole, in one transaction.
	Broken string
	// Chains are the chains that are there, and whether their rules are the desired ones.
	Chains map[string]bool
	// Sets are the sets and maps that are there.
	Sets map[string]struct{}
	// Elements are the elements of the fixed sets.
	Elements map[nftables.ElementID]nftables.Element
}

// NewTableState returns an empty TableState.
func NewTableState() *TableState {
	return &TableState{Chains: map[string]bool{}, Sets: map[string]struct{}{}, Elements: map[nftables.ElementID]nftables.Element{}}
}

// Slots returns the slots that were found in the kernel, so that a new process
// goes on where the one before it stopped.
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
