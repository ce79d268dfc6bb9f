package rules

import (
	"fmt"

	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// target is where frontends of one kind lead to.
type target struct {
	shape            Shape
	backends, locals []service.Backend // each once, sorted
	weights          weights
	// slots and localSlots are the backends by slot, where they do not keep their slots: see layOut.
	slots, localSlots []service.Backend
	serving           []service.Backend
	notes             []string // what is left out of each frontend
}

// portTargets are the targets of one port in one family.
type portTargets struct {
	*service.Port
	family             service.Family
	internal, external target
}

func clusterShape(kind ShapeKind, backends []service.Backend, anywhere bool) target {
	switch {
	case !anywhere:
		return target{shape: Shape{Kind: ShapeReject}}
	case len(backends) == 0:
		return target{shape: Shape{Kind: ShapeDrop}}
	}
	return target{shape: Shape{Kind: kind, N: len(backends)}, backends: backends}
}

func localShape(cluster, local []service.Backend, anywhere bool) target {
	if !anywhere {
		return target{shape: Shape{Kind: ShapeReject}}
	}
	shape := Shape{Kind: ShapeLocal, N: len(cluster), Locals: len(local)}
	return target{shape: shape, backends: cluster, locals: local}
}

// trim bounds the backends to the number of slots.
func (t *target) trim() {
	most := func(list []service.Backend, max int, n *int) []service.Backend {
		if len(list) <= max {
			return list
		}
		t.notes = append(t.notes, fmt.Sprintf("has %d endpoints, %d are used", len(list), max))
		*n = max
		return list[:max]
	}
	t.backends = most(t.backends, nftables.MaxSlots, &t.shape.N)
	t.locals = most(t.locals, nftables.MaxLocalSlots, &t.shape.Locals)
}

// elements returns the number of elements of a frontend that leads to the target.
func (t *target) elements(sticky bool) int {
	n := 1 + t.shape.N + t.shape.Locals
	if sticky {
		n += len(t.backends) + len(t.locals)
	}
	if t.shape.Scheduler == service.RoundRobin {
		n += turnElements
	}
	return n
}
