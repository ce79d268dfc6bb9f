package rules

import (
	"slices"

	"github.com/nftproxy/nftproxy/rules/service"
)

// AssignSlots gives each backend in want, which is sorted and has no duplicates, a slot: its index in the
// result. A backend keeps the slot that it has in prev if this is below len(want). Backends with higher slots
// fill the holes first, then new ones in the order of want. Invalid backends in prev are holes.
//
// So the removal of an endpoint changes at most two slots; an addition or a replacement changes one.
func AssignSlots(prev, want []service.Backend) []service.Backend {
	if len(want) == 0 {
		return nil
	}
	slots, placed := make([]service.Backend, len(want)), make([]bool, len(want))
	var moved []service.Backend
	at := 0 // the index in want of the next backend of prev, if prev is in order, as it mostly is
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
