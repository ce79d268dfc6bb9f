package service

import (
	"cmp"
	"net/netip"
	"time"
)

// ServiceName identifies a Service in the cluster.
type Name struct {
	Namespace, Name string
}

// String returns namespace/name.
func (n Name) String() string { return n.Namespace + "/" + n.Name }

// Compare orders by namespace, then name.
func (n Name) Compare(m Name) int {
	return cmp.Or(cmp.Compare(n.Namespace, m.Namespace), cmp.Compare(n.Name, m.Name))
}

// Service is what Compile needs to know of a Service and its EndpointSlices.
// Addresses of both families may be mixed in every list. They are valid and without
// zone, names are DNS labels and ports are not 0, which proxier/state sees to.
type Service struct {
	Name    Name
	Created time.Time // of two Services on one frontend the older has it

	ClusterIPs      []netip.Addr
	ExternalIPs     []netip.Addr
	LoadBalancerIPs []netip.Addr // those with ipMode VIP

	// SourceRanges are loadBalancerSourceRanges. Load-balancer IPs of a family that
	// there is a range of admit these and nobody else; as with kube-proxy, ranges of
	// one family do not restrict the other. Restricted says that there were more,
	// which cannot be read: then both families admit SourceRanges only.
	SourceRanges []netip.Prefix
	Restricted   bool

	InternalLocal bool // internalTrafficPolicy: Local
	ExternalLocal bool // externalTrafficPolicy: Local

	AffinityTimeout time.Duration // sessionAffinity: ClientIP; 0 is None

	HealthCheckPort uint16 // healthCheckNodePort; 0: none

	Ports []Port
}

// ServicePort is one port of a Service with the endpoints that serve it.
type Port struct {
	Name      string
	Protocol  Protocol
	Port      uint16
	NodePort  uint16 // 0: none
	Endpoints []Endpoint
}

// Endpoint is one endpoint of a ServicePort, whatever its condition.
type Endpoint struct {
	Backend     Backend
	Node        string // name of the node that it runs on
	Ready       bool
	Serving     bool
	Terminating bool
	ZoneHints   []string
	NodeHints   []string
}

// Node is what the ruleset depends on of the node that it is for.
type Node struct {
	Name string
	Zone string // label topology.kubernetes.io/zone
	// Addrs are the node's primary addresses, at most one a family.
	Addrs []netip.Addr
	// NodePortAddrs are the addresses that nodePorts are reached on.
	NodePortAddrs []netip.Addr
}
