package rules

import (
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// A scheduler is the last part of the key with which a rule looks up the endpoint: the number of a slot. A
// list of slots may name an endpoint more than once: that is a weight.
//
// The kernel keeps the number of RoundRobin in a rule, so each frontend has a chain of its own. This chain
// looks nothing up: whenever a rule comes that uses a map, the kernel checks all elements of the map, and
// whenever an element comes, all rules. The chain only takes a number, from 1 on, and goes to a chain that
// all frontends of its kind share. Its slots are in the maps of numbered backends, because a number in the
// priority of a packet is of another type for nft than that of a slot.
//
// A table of hashes and a list of weights depend only on the endpoints. Elsewhere an endpoint keeps its slot,
// see [AssignSlots].

// slot returns the field that chooses one of n slots.
func (s Shape) slot(n int) nftables.Field {
	switch s.Scheduler {
	case service.Maglev:
		return nftables.FlowHash(n)
	case service.SourceHash:
		return nftables.SourceHash(n)
	}
	return nftables.Random(n)
}

// turnRules returns the rules of a frontend that takes slots in turn, after those that mark.
func (s Shape) turnRules(f service.Family, c Config) []nftables.Rule {
	turn := func(n int, to ShapeKind) nftables.Rule {
		return nftables.Rule{nftables.TakeTurn{N: n}, nftables.Goto{Chain: turnPart(to).ChainName()}}
	}
	if s.Kind != ShapeLocal {
		return []nftables.Rule{turn(s.N, s.Kind)}
	}
	rules := []nftables.Rule{append(nftables.Rule{nftables.AddrLocal{Addr: nftables.SrcAddr}},
		turn(s.N, shapeAny)...)}
	if pods, ok := c.PodTraffic.match(f, false); ok {
		rules = append(rules, append(nftables.Rule{pods}, turn(s.N, shapeAny)...))
	}
	if s.Locals == 0 {
		return append(rules, nftables.Rule{nftables.Drop{}})
	}
	return append(rules, turn(s.Locals, ShapeLocal))
}

// turnPart is the chain that sends a connection to the backend with the number of its turn.
func turnPart(k ShapeKind) Shape { return Shape{Kind: k, Scheduler: service.RoundRobin} }

// turnElements is what the chain of a frontend counts for among its elements: the chain, its rules, and the
// element that leads to it.
const turnElements = 4

// scheduler returns the scheduler of the Service. With session affinity a client chooses at random once.
func (c *compiler) scheduler() service.Scheduler {
	s := c.node.Scheduler
	if c.svc.HasScheduler {
		s = c.svc.Scheduler
	}
	if c.svc.AffinityTimeout > 0 {
		if c.svc.HasScheduler && s != service.Random {
			c.problem("scheduler %s has no effect with sessionAffinity ClientIP: a client chooses at random once", s)
		}
		return service.Random
	}
	return s
}

// schedule gives a target the slots that its scheduler and its weights want.
func (c *compiler) schedule(t *target, w weights) {
	if len(t.backends) <= 1 && len(t.locals) <= 1 {
		return // there is nothing to choose
	}
	t.shape.Scheduler, t.weights = c.by, w
	if !t.resize(nftables.MaxSlots, nftables.MaxSlots) {
		c.problem("scheduler %s and weights need too many slots for %d endpoints: %s",
			c.by, len(t.backends), withoutScheduler)
		t.plain()
	}
}

// withoutScheduler ends the problem of a Service that cannot have its scheduler.
const withoutScheduler = "connections choose at random, and weights other than 0 do not count"

// resize gives a target the slots that it wants, and no larger tables than there is room for. It returns
// false if there are no tables that small.
func (t *target) resize(room, localRoom int) bool {
	n := t.slotsOf(t.backends, room)
	locals := t.slotsOf(t.locals, min(localRoom, nftables.MaxLocalSlots))
	if n < len(t.backends) || locals < len(t.locals) {
		return false
	}
	t.shape.N, t.shape.Locals = n, locals
	return true
}

// slotsOf returns how many slots backends want; 0 if there is not the room that they need.
func (t *target) slotsOf(backends []service.Backend, room int) int {
	_, sum := t.weights.among(backends)
	switch {
	case t.shape.Scheduler.Hashes() && len(backends) > 1:
		return tableSize(len(backends), sum, room)
	case t.weights != nil && sum > room:
		return 0
	}
	return sum
}

// plain makes a target choose at random among backends of the same weight.
func (t *target) plain() {
	t.shape.Scheduler, t.weights = service.Random, nil
	t.shape.N, t.shape.Locals = len(t.backends), len(t.locals)
}

// fit makes the Service want no more elements than it may have, if it would not without its scheduler and
// weights: its tables become smaller, or it has to do without. A frontend that is served at random is better
// than none.
func (c *compiler) fit(limit int) {
	wanted := c.out.Demand.Elements
	if wanted <= limit {
		return
	}
	scheduled := false
	room := limit/c.out.Demand.Frontends - 1 // of a frontend, without the element that leads to it
	c.eachTarget(func(t *target) {
		scheduled = scheduled || t.shape.Scheduler != service.Random || t.weights != nil
		if len(t.locals) > 1 {
			t.resize(room/2, room/2)
		} else {
			t.resize(room-len(t.locals), room)
		}
	})
	if _, elements := c.demand(); !scheduled || elements <= limit {
		return
	}
	c.eachTarget((*target).plain)
	c.problem("scheduler and weights would need %d elements, more than %d for this Service with its %d ports, "+
		"addresses and endpoints: %s", wanted, limit, c.out.Demand.Listed, withoutScheduler)
}

func (c *compiler) eachTarget(do func(*target)) {
	for i := range c.ports {
		do(&c.ports[i].internal)
		do(&c.ports[i].external)
	}
}

// spread lays out the slots of a target whose backends do not keep theirs, once for all of its frontends.
func (t *target) spread() {
	if t.slots == nil && t.localSlots == nil {
		t.slots, t.localSlots = t.layOut(t.backends, t.shape.N), t.layOut(t.locals, t.shape.Locals)
	}
}

// layOut returns backends by slot, and nil if they keep their slots.
func (t *target) layOut(backends []service.Backend, n int) []service.Backend {
	reduced, _ := t.weights.among(backends)
	switch {
	case len(backends) <= 1:
		return nil
	case t.shape.Scheduler.Hashes():
		return maglev(backends, reduced, n)
	case reduced != nil:
		return interleave(backends, reduced)
	}
	return nil
}
