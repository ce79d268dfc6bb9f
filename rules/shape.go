package rules

import (
	"strconv"
	"strings"

	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Shape is the form of a frontend in the data path. All frontends of one shape share one chain.
type Shape struct {
	Kind   ShapeKind
	N      int // endpoints to choose from
	Locals int // those on this node, for ShapeLocal
}

// ShapeKind is the kind of a shape.
type ShapeKind uint8

const (
	// ShapeReject refuses connections: no endpoint exists.
	ShapeReject ShapeKind = iota
	// ShapeDrop drops connections: the policy is Local and this node has no endpoint.
	ShapeDrop
	// ShapeCluster is a ClusterIP: only traffic that is not from pods is masqueraded.
	ShapeCluster
	// ShapeExternal is a nodePort, load-balancer or external IP with policy Cluster: all traffic is
	// masqueraded, because the reply must come back through this node.
	ShapeExternal
	// ShapeLocal is the same with policy Local: traffic from outside goes to endpoints on this node and keeps
	// its source address.
	ShapeLocal
)

// String returns the name of the kind, as in the names of chains and maps.
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

// isShapeChain reports whether a chain of that name belongs to a shape.
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
		rules = append(markRules(s.Kind, f, c), nftables.Rule{toEndpoint(nftables.Endpoints, s.N)})
	}
	return nftables.Chain{Family: f, Name: s.ChainName(), Rules: rules}
}

// toEndpoint sends the connection to one of the first n backends of its frontend in a map.
func toEndpoint(m nftables.SetKind, n int) nftables.DNAT {
	return nftables.DNAT{Key: nftables.SlotKey(n), Map: m.String()}
}

// refuseRules refuse a connection at once. For TCP they send a reset: the kernel loses an ICMPv6 error to a
// socket of the same host while the socket connects, and the client would wait for a second.
func refuseRules() []nftables.Rule {
	tcp := nftables.IsProtocol{Protocol: service.TCP}
	return []nftables.Rule{{tcp, nftables.Reset{}}, {nftables.Reject{}}}
}

// markRules mark connections to be masqueraded.
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

// localRules send traffic of this host and of pods to any endpoint, as a load balancer would, and all other
// traffic to an endpoint on this node.
func (s Shape) localRules(f service.Family, c Config) []nftables.Rule {
	var rules []nftables.Rule
	if s.N > 0 {
		any := toEndpoint(nftables.Endpoints, s.N)
		rules = append(rules, nftables.Rule{nftables.AddrLocal{Addr: nftables.SrcAddr}, any})
		if pods, ok := c.PodTraffic.match(f, false); ok {
			rules = append(rules, nftables.Rule{pods, any})
		}
	}
	if s.Locals == 0 {
		return append(rules, nftables.Rule{nftables.Drop{}})
	}
	return append(rules, nftables.Rule{toEndpoint(nftables.LocalEndpoints, s.Locals)})
}
