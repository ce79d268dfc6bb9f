package rules

import (
	"strconv"
	"strings"
)

// Shape is what Services have in common for the data path: connections to all
// frontends of one shape run through one chain.
type Shape struct {
	Kind   ShapeKind
	N      int // endpoints to choose from
	Locals int // those on this node, for ShapeLocal
}

// ShapeKind is the kind of frontend a shape is for.
type ShapeKind uint8

const (
	// ShapeReject refuses: there is no endpoint anywhere.
	ShapeReject ShapeKind = iota
	// ShapeDrop drops: the policy is Local and no endpoint is here.
	ShapeDrop
	// ShapeCluster is a ClusterIP: masqueraded only for what is no pod's traffic.
	ShapeCluster
	// ShapeExternal is a nodePort, load-balancer or external IP with policy
	// Cluster: always masqueraded, as the reply must come back through this node.
	ShapeExternal
	// ShapeLocal is the same with policy Local: outside traffic goes to
	// endpoints on this node with its own source address.
	ShapeLocal
)

// String returns the word for the kind in names of chains and maps.
func (k ShapeKind) String() string {
	return [...]string{"no-endpoints", "no-local-endpoints", "cluster", "external", "local"}[k]
}

// ChainName returns the name of the shape's chain.
func (s Shape) ChainName() string {
	switch s.Kind {
	case ShapeCluster, ShapeExternal:
		return s.Kind.String() + "-" + strconv.Itoa(s.N)
	case ShapeLocal:
		return s.Kind.String() + "-" + strconv.Itoa(s.Locals) + "-of-" + strconv.Itoa(s.N)
	}
	return s.Kind.String()
}

// isShapeChain reports whether a chain of that name is a shape's.
func isShapeChain(name string) bool {
	for k := ShapeReject; k <= ShapeLocal; k++ {
		if name == k.String() || strings.HasPrefix(name, k.String()+"-") {
			return true
		}
	}
	return false
}

// chain returns the shape's chain.
func (s Shape) chain(f Family, c Config) Chain {
	var rules []Rule
	switch s.Kind {
	case ShapeReject:
		rules = refuseRules()
	case ShapeDrop:
		rules = []Rule{{Drop{}}}
	case ShapeLocal:
		rules = append(markRules(s.Kind, f, c), s.localRules(f, c)...)
	default:
		rules = append(markRules(s.Kind, f, c), Rule{DNAT{Key: slotKey(s.N), Map: Endpoints.String()}})
	}
	return Chain{Family: f, Name: s.ChainName(), Rules: rules}
}

// refuseRules refuse a connection at once. For TCP that is a reset: an ICMPv6 error
// to a socket of the same host is lost while the socket connects, and it would
// learn of it after a second only.
func refuseRules() []Rule {
	return []Rule{{IsProtocol{TCP}, Reset{}}, {Reject{}}}
}

// markRules mark what is to be masqueraded.
func markRules(k ShapeKind, f Family, c Config) []Rule {
	mark := SetMark{c.MasqueradeMark}
	switch {
	case k == ShapeExternal, k == ShapeCluster && c.MasqueradeAll:
		return []Rule{{mark}}
	case k == ShapeLocal:
		return []Rule{{AddrLocal{Addr: SrcAddr}, mark}}
	}
	if outside, ok := c.PodTraffic.match(f, true); ok {
		return []Rule{{outside, mark}}
	}
	return nil
}

// localRules send this host's and the cluster's pods' traffic to any endpoint,
// as if it had gone through the load balancer, and all other to one on this node.
func (s Shape) localRules(f Family, c Config) []Rule {
	var rules []Rule
	if s.N > 0 {
		any := DNAT{Key: slotKey(s.N), Map: Endpoints.String()}
		rules = append(rules, Rule{AddrLocal{Addr: SrcAddr}, any})
		if pods, ok := c.PodTraffic.match(f, false); ok {
			rules = append(rules, Rule{pods, any})
		}
	}
	if s.Locals == 0 {
		return append(rules, Rule{Drop{}})
	}
	return append(rules, Rule{DNAT{Key: slotKey(s.Locals), Map: LocalEndpoints.String()}})
}
