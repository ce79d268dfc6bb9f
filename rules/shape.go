package rules

import (
	"strconv"
	"strings"
	"time"

	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Shape is what frontends have in common for the data path: connections to all frontends of one shape run
// through one chain.
type Shape struct {
	Kind    ShapeKind
	N       int           // slots to choose from
	Locals  int           // those with endpoints on this node, for ShapeLocal
	Timeout time.Duration // of session affinity; 0: every connection chooses anew
	// Scheduler says how a slot is chosen. With RoundRobin each frontend has a chain of its own: the kernel
	// counts for each rule, and frontends that alternate would each always meet the same slots. These chains
	// go to others, whose shape has N 0.
	Scheduler service.Scheduler
}

// ShapeKind is the kind of a shape.
type ShapeKind uint8

const (
	// ShapeReject refuses connections: no endpoint exists.
	ShapeReject ShapeKind = iota
	// ShapeDrop drops: the policy is Local and no endpoint is on this node.
	ShapeDrop
	// ShapeCluster is a ClusterIP: it masquerades traffic that does not come from a pod.
	ShapeCluster
	// ShapeExternal is a nodePort, load-balancer or external IP with policy Cluster: it always masquerades,
	// as the reply must come back through this node.
	ShapeExternal
	// ShapeLocal is the same with policy Local: traffic from outside goes to endpoints on this node with its
	// own source address.
	ShapeLocal
	// shapeAny leads to all endpoints for a ShapeLocal with session affinity or with RoundRobin.
	shapeAny
)

// String returns the word for the kind in names of chains.
func (k ShapeKind) String() string {
	return [...]string{"no-endpoints", "no-local-endpoints", "cluster", "external", "local", "any"}[k]
}

// stickyPrefix begins the names of chains with session affinity.
const stickyPrefix = "sticky-"

// ChainName returns the name of the shape's chain; with RoundRobin the first part of it, see Entry.ChainName.
func (s Shape) ChainName() string {
	var name string
	switch s.Kind {
	case ShapeReject, ShapeDrop:
		return s.Kind.String()
	case ShapeLocal:
		name = s.Kind.String() + "-" + strconv.Itoa(s.Locals) + "-of-" + strconv.Itoa(s.N)
	default:
		name = s.Kind.String() + "-" + strconv.Itoa(s.N)
	}
	switch {
	case s.Timeout > 0:
		name = stickyPrefix + name + "-" + strconv.Itoa(int(s.Timeout.Seconds()))
	case s.Scheduler == service.RoundRobin && s.N == 0:
		name = s.Scheduler.String() + "-" + s.Kind.String()
	case s.Scheduler != service.Random:
		name = s.Scheduler.String() + "-" + name
	}
	return name
}

// isShapeChain reports whether a chain of that name belongs to a shape.
func isShapeChain(name string) bool {
	name = strings.TrimPrefix(name, stickyPrefix)
	for _, s := range service.Schedulers() {
		name = strings.TrimPrefix(name, s.String()+"-")
	}
	for k := ShapeReject; k <= shapeAny; k++ {
		if name == k.String() || strings.HasPrefix(name, k.String()+"-") {
			return true
		}
	}
	return false
}

// Major parts of the numbers of shapes. They lie between the handles that people give to queueing
// disciplines, which are small, and those that the kernel gives, which begin with 8001 (net/sched/sch_api.c):
// none takes a packet with such a priority for one of its classes.
const (
	majorCluster  = 0x4c00
	majorDrop     = 0x4d00
	majorExternal = 0x4e00
	majorReject   = 0x4f00
	majorAssigned = 0x4a00
	majorLocal    = 0x5000 // and the endpoints on this node
)

// number returns the number of a shape without session affinity and at random, in the map shapes: 4c00:3 is
// a ClusterIP with 3 endpoints, 4e00:3 an external frontend with 3, 5001:3 policy Local with 1 of 3 on this
// node (in hexadecimal). The numbers of other shapes are assigned, see [Ruleset].
func (s Shape) number() (n nftables.Class, ok bool) {
	switch {
	case s.Timeout > 0 || s.Scheduler != service.Random:
		return 0, false
	case s.Kind == ShapeReject:
		return nftables.NewClass(majorReject, 0), true
	case s.Kind == ShapeDrop:
		return nftables.NewClass(majorDrop, 0), true
	case s.Kind == ShapeCluster:
		return nftables.NewClass(majorCluster, uint16(s.N)), true
	case s.Kind == ShapeExternal:
		return nftables.NewClass(majorExternal, uint16(s.N)), true
	}
	return nftables.NewClass(majorLocal|uint16(s.Locals), uint16(s.N)), true
}

// isPart reports whether only chains of other shapes lead to the shape's chain, and no number.
func (s Shape) isPart() bool {
	return s.Kind == shapeAny || s.Scheduler == service.RoundRobin && s.N == 0
}

// parts returns the shape and the shapes whose chains its chain leads to.
func (s Shape) parts() []Shape {
	if s.Scheduler == service.RoundRobin {
		switch {
		case s.Kind != ShapeLocal:
			return []Shape{s, turnPart(s.Kind)}
		case s.Locals == 0:
			return []Shape{s, turnPart(shapeAny)}
		}
		return []Shape{s, turnPart(shapeAny), turnPart(ShapeLocal)}
	}
	if s.Kind == ShapeLocal && s.Timeout > 0 && s.N > 0 {
		return []Shape{s, s.any()}
	}
	return []Shape{s}
}

// any is the shape that chooses among all endpoints.
func (s Shape) any() Shape { return Shape{Kind: shapeAny, N: s.N, Timeout: s.Timeout} }

// chain returns the shape's chain.
func (s Shape) chain(f service.Family, c Config) nftables.Chain {
	var rules []nftables.Rule
	switch turns := s.Scheduler == service.RoundRobin; {
	case s.Kind == ShapeReject:
		rules = refuseRules()
	case s.Kind == ShapeDrop:
		rules = []nftables.Rule{{nftables.Drop{}}}
	case turns && s.N > 0 && s.Kind != ShapeLocal: // the part marks
		rules = s.turnRules(f, c)
	case turns && s.N > 0:
		rules = append(markRules(s.Kind, f, c), s.turnRules(f, c)...)
	case turns && s.Kind == ShapeLocal:
		send := nftables.DNAT{Key: nftables.BackendKey(), Map: nftables.StickyLocalBackends.String()}
		rules = []nftables.Rule{{send}}
	case turns:
		send := nftables.DNAT{Key: nftables.BackendKey(), Map: nftables.StickyBackends.String()}
		rules = append(markRules(s.Kind, f, c), nftables.Rule{send})
	case s.Kind == ShapeLocal:
		rules = append(markRules(s.Kind, f, c), s.localRules(f, c)...)
	default:
		rules = append(markRules(s.Kind, f, c), s.choose()...)
	}
	return nftables.Chain{Family: f, Name: s.ChainName(), Rules: rules}
}

// refuseRules refuse a connection at once. For TCP that is a reset: an ICMPv6 error to a socket of the same
// host is lost while the socket connects, and it would learn of it after a second only.
func refuseRules() []nftables.Rule {
	return []nftables.Rule{
		{nftables.IsProtocol{Protocol: service.TCP}, nftables.Reset{}},
		{nftables.Reject{}},
	}
}

// markRules mark packets to be masqueraded.
func markRules(k ShapeKind, f service.Family, c Config) []nftables.Rule {
	mark := nftables.SetMark{Mask: c.MasqueradeMark}
	switch {
	case k == shapeAny:
		return nil // the chain that jumps here has marked them
	case k == ShapeExternal, k == ShapeCluster && c.MasqueradeAll:
		return []nftables.Rule{{mark}}
	case k == ShapeLocal:
		return []nftables.Rule{{nftables.AddrLocal{Addr: nftables.SrcAddr}, mark}}
	}
	if outside, ok := c.PodTraffic.match(f, true); ok {
		return []nftables.Rule{{outside, mark}}
	}
	return nil
}

// choose returns the rules that choose one of all endpoints.
func (s Shape) choose() []nftables.Rule {
	if s.Timeout > 0 {
		return stickyRules(s.N, s.Timeout, nftables.StickySlots, nftables.StickyBackends)
	}
	dnat := nftables.DNAT{Key: nftables.SlotKeyBy(s.slot(s.N)), Map: nftables.Endpoints.String()}
	return []nftables.Rule{{dnat}}
}

// chooseLocal returns the rules that choose one of the endpoints on this node.
func (s Shape) chooseLocal() []nftables.Rule {
	if s.Timeout > 0 {
		return stickyRules(s.Locals, s.Timeout, nftables.StickyLocalSlots, nftables.StickyLocalBackends)
	}
	dnat := nftables.DNAT{Key: nftables.SlotKeyBy(s.slot(s.Locals)), Map: nftables.LocalEndpoints.String()}
	return []nftables.Rule{{dnat}}
}

// localRules send traffic of this host and of the cluster's pods to any endpoint, as if it had gone through
// the load balancer, and all other to one on this node.
func (s Shape) localRules(f service.Family, c Config) []nftables.Rule {
	var rules []nftables.Rule
	if s.N > 0 {
		var any nftables.Statement = nftables.Jump{Chain: s.any().ChainName()} // does not come back
		if s.Timeout == 0 {
			any = s.choose()[0][0]
		}
		rules = append(rules, nftables.Rule{nftables.AddrLocal{Addr: nftables.SrcAddr}, any})
		if pods, ok := c.PodTraffic.match(f, false); ok {
			rules = append(rules, nftables.Rule{pods, any})
		}
	}
	if s.Locals == 0 {
		return append(rules, nftables.Rule{nftables.Drop{}})
	}
	return append(rules, s.chooseLocal()...)
}
