package service

import (
	"cmp"
	"net/netip"
	"time"
)

// Name identifies a Service in the cluster.
type Name struct {
	Namespace, Name string
}

// String returns namespace/name.
func (n Name) String() string { return n.Namespace + "/" + n.Name }

// Compare orders names by namespace, then by name.
func (n Name) Compare(m Name) int {
	return cmp.Or(cmp.Compare(n.Namespace, m.Namespace), cmp.Compare(n.Name, m.Name))
}

// Service has the properties of a Service and of its EndpointSlices that the rules depend on. Each list may
// have addresses of both families. proxier/state ensures that addresses are valid and have no zone, that
// names are DNS labels and that ports are not 0.
type Service struct {
	Name    Name
	Created time.Time // of two Services on one frontend the older gets it

	ClusterIPs      []netip.Addr
	ExternalIPs     []netip.Addr
	LoadBalancerIPs []netip.Addr // those with ipMode VIP

	// SourceRanges are loadBalancerSourceRanges. If one of them is of a family, the load-balancer IPs of this
	// family admit only these sources. As in kube-proxy, ranges of one family do not restrict the other.
	SourceRanges []netip.Prefix
	// Restricted says that the Service has further ranges, which are invalid. Then the load-balancer IPs of
	// both families admit only SourceRanges.
	Restricted bool

	InternalLocal bool // internalTrafficPolicy: Local
	ExternalLocal bool // externalTrafficPolicy: Local

	AffinityTimeout time.Duration // of sessionAffinity: ClientIP; 0: None

	Scheduler    Scheduler
	HasScheduler bool // otherwise that of the node counts

	HealthCheckPort uint16 // healthCheckNodePort; 0: none

	Ports []Port

	// Present are the addresses of all endpoints in all slices, in any condition, with port 0, sorted. It is
	// empty if the Service has no port of SCTP.
	Present []Backend
}

// Port is one port of a Service with the endpoints that serve it.
type Port struct {
	Name      string
	Protocol  Protocol
	Port      uint16
	NodePort  uint16 // 0: none
	Endpoints []Endpoint
}

// Endpoint is one endpoint of a port, in any condition.
type Endpoint struct {
	Backend     Backend
	Node        string // the name of its node
	Ready       bool
	Serving     bool
	Terminating bool
	Drained     bool  // gets no new connections, though it is ready: its weight is 0
	Weight      uint8 // of new connections, relative to the other endpoints; 0 is as 1
	ZoneHints   []string
	NodeHints   []string
}

// Node has the properties of a node that its rules depend on.
type Node struct {
	Name string
	Zone string // from the label topology.kubernetes.io/zone
	// Addrs are the node's primary addresses, at most one per family.
	Addrs []netip.Addr
	// NodePortAddrs are the addresses on which clients reach nodePorts.
	NodePortAddrs []netip.Addr
	// LoopbackAddrs are the loopback addresses on which a proxy in user space serves nodePorts, at most one
	// per family.
	LoopbackAddrs []netip.Addr
	// Scheduler is that of Services that have none of their own.
	Scheduler Scheduler
	// Reserved are frontends that Services must not have, because the node itself needs them.
	Reserved map[Frontend]Reservation
}

// Reservation says why a frontend is reserved.
type Reservation struct {
	Use string // what the node needs it for, for people: "the API server"
	By  Name   // the only Service that may have it; the zero Name: none
}
