package rules

import (
	"slices"

	"github.com/nftproxy/nftproxy/rules/service"
)

// AssignSlots gives each of want, which is sorted and holds no duplicates, a slot: its
// index in the result. A backend keeps the slot that it has in prev where that is
// below len(want); holes are filled first with those whose slot is above, then
// with newcomers in the order of want. Invalid backends in prev are holes.
//
// So one endpoint that goes costs at most two element operations, one that is
// replaced costs one, and one that comes costs one.
func AssignSlots(prev, want []service.Backend) []service.Backend {
	if len(want) == 0 {
		return nil
	}
	slots, placed := make([]service.Backend, len(want)), make([]bool, len(want))
	var moved []service.Backend
	at := 0 // where in want the next of prev is, if that is in order; slots mostly are
	for i, b := range prev {
		if at == len(want) || want[at] != b {
			var wanted bool
			if at, wanted = slices.BinarySearchFunc(want, b, service.Backend.Compare); !wanted {
				continue
			}
		}
		if !placed[at] && i < len(slots) {
			slots[i] = b
		} else if !placed[at] {
			moved = append(moved, b)
		}
		placed[at] = true
		at++
	}
	for i, b := range want {
		if !placed[i] {
			moved = append(moved, b)
		}
	}
	for i, b := range slots {
		if !b.IsValid() {
			slots[i], moved = moved[0], moved[1:]
		}
	}
	return slots
}
