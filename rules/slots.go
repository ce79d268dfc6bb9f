package rules

// MaxSlots is how many endpoints one frontend can have.
const MaxSlots = 65536

// AssignSlots gives each of want, which holds no duplicates, a slot: its index
// in the result. A backend keeps the slot that it has in prev where that is
// below len(want); holes are filled first with those whose slot is above, then
// with newcomers in the order of want. Invalid backends in prev are holes.
//
// So one endpoint that goes costs at most two element operations, one that is
// replaced costs one, and one that comes costs one.
func AssignSlots(prev, want []Backend) []Backend {
	if len(want) == 0 {
		return nil
	}
	missing := make(map[Backend]struct{}, len(want))
	for _, b := range want {
		missing[b] = struct{}{}
	}
	slots := make([]Backend, len(want))
	var moved []Backend
	for i, b := range prev {
		if _, ok := missing[b]; !ok {
			continue
		}
		delete(missing, b)
		if i < len(slots) {
			slots[i] = b
		} else {
			moved = append(moved, b)
		}
	}
	for _, b := range want {
		if _, ok := missing[b]; ok {
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
