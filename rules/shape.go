package rules

import (
	"strconv"
	"strings"

	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
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
func (s Shape) chain(f service.Family, c Config) nftables.Chain {
	var rules []nftables.Rule
	switch s.Kind {
	case ShapeReject:
		rules = refuseRules()
	case ShapeDrop:
		rules = []nftables.Rule{{nftables.Drop{}}}
	case ShapeLocal:
		rules = append(markRules(s.Kind, f, c), s.localRules(f, c)...)
	default:
		rules = append(markRules(s.Kind, f, c), nftables.Rule{nftables.DNAT{Key: nftables.SlotKey(s.N), Map: nftables.Endpoints.String()}})
	}
	return nftables.Chain{Family: f, Name: s.ChainName(), Rules: rules}
}

// refuseRules refuse a connection at once. For TCP that is a reset: an ICMPv6 error
// to a socket of the same host is lost while the socket connects, and it would
// learn of it after a second only.
func refuseRules() []nftables.Rule {
	return []nftables.Rule{{nftables.IsProtocol{Protocol: service.TCP}, nftables.Reset{}}, {nftables.Reject{}}}
}

// markRules mark what is to be masqueraded.
func markRules(k ShapeKind, f service.Family, c Config) []nftables.Rule {
	mark := nftables.SetMark{Mask: c.MasqueradeMark}
	switch {
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

// localRules send this host's and the cluster's pods' traffic to any endpoint,
// as if it had gone through the load balancer, and all other to one on this node.
func (s Shape) localRules(f service.Family, c Config) []nftables.Rule {
	var rules []nftables.Rule
	if s.N > 0 {
		any := nftables.DNAT{Key: nftables.SlotKey(s.N), Map: nftables.Endpoints.String()}
		rules = append(rules, nftables.Rule{nftables.AddrLocal{Addr: nftables.SrcAddr}, any})
		if pods, ok := c.PodTraffic.match(f, false); ok {
			rules = append(rules, nftables.Rule{pods, any})
		}
	}
	if s.Locals == 0 {
		return append(rules, nftables.Rule{nftables.Drop{}})
	}
	return append(rules, nftables.Rule{nftables.DNAT{Key: nftables.SlotKey(s.Locals), Map: nftables.LocalEndpoints.String()}})
}
