package spec

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// Config is what the configuration of kube-proxy and nftproxy says (docs/configuration.md).
type Config struct {
	ClusterCIDRs  []netip.Prefix // of detectLocalMode ClusterCIDR
	NodeCIDR      bool           // detectLocalMode NodeCIDR
	PodInterface  string         // of the other modes: a name, or the beginning of one with a * behind it
	MasqueradeAll bool

	NodePortAddresses []string // CIDRs, and the word primary
	BindAddress       netip.Addr

	NoExternalIPs   bool           // the feature gate AllowServiceExternalIPs is off
	AllowedExternal []netip.Prefix // --allowed-external-cidrs; empty: all
	ReservedPorts   []uint16       // TCP ports of the node that no Service has
}

// Cluster is all that decides on a packet. Call Resolve before Allowed.
type Cluster struct {
	Config    Config
	NodeName  string
	HostAddrs []netip.Addr // of all interfaces, without loopback
	Objects   []any        // pointers to objects of k8s.io/api

	node         nodeInfo
	services     []*corev1.Service // that are ours, the oldest first
	slices       []*discoveryv1.EndpointSlice
	serviceCIDRs []netip.Prefix
	podCIDRs     []netip.Prefix
	clusterIPs   map[netip.Addr]bool
	pods         map[netip.Addr]bool // endpoints on this node
	frontends    map[address]*frontend
	claims       map[address]map[string]bool // ports of Services that want it, also those that do not get it
}

// address is where clients connect to.
type address struct {
	ip       netip.Addr
	protocol uint8
	port     uint16
}

// frontend is a port of a Service at one address.
type frontend struct {
	owner    string // namespace/name
	kind     int
	cluster  bool // a ClusterIP; otherwise an address for clients outside of the cluster
	here     bool // the traffic policy is Local
	anywhere []netip.AddrPort
	local    []netip.AddrPort
	affinity timeout
	one      bool // a client has one of the endpoints, and which one is not said

	restricted bool
	sources    []netip.Prefix
}

// Resolve finds out who has which address and port.
func (c *Cluster) Resolve() {
	c.clusterIPs, c.pods = map[netip.Addr]bool{}, map[netip.Addr]bool{}
	c.frontends, c.claims = map[address]*frontend{}, map[address]map[string]bool{}
	for _, o := range c.Objects {
		switch o := o.(type) {
		case *corev1.Node:
			if o.Name == c.NodeName {
				c.node = newNode(o)
			}
		case *networkingv1.ServiceCIDR:
			c.serviceCIDRs = append(c.serviceCIDRs, prefixes(o.Spec.CIDRs)...)
		case *discoveryv1.EndpointSlice:
			c.slices = append(c.slices, o)
		case *corev1.Service:
			if ours(o) {
				c.services = append(c.services, o)
			}
		}
	}
	if c.podCIDRs = c.Config.ClusterCIDRs; c.Config.NodeCIDR {
		c.podCIDRs = c.node.podCIDRs
	}
	if bind := c.Config.BindAddress; bind.IsValid() {
		c.node.primary[bind.Is4()] = bind
	}
	// Of two Services that want one address and port the older has it; of one age, the one whose name comes
	// first (docs/design.md, "Who has a frontend"; kube-proxy leaves it open).
	slices.SortFunc(c.services, func(a, b *corev1.Service) int {
		return cmp.Or(a.CreationTimestamp.Time.Compare(b.CreationTimestamp.Time),
			cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	for _, s := range c.services {
		c.claim(s)
	}
}

// Frontends returns packets to each address and port of a Service, without a source.
func (c *Cluster) Frontends() (out []Packet) {
	for a := range c.frontends {
		out = append(out, Packet{Dst: a.ip, Protocol: a.protocol, Port: a.port})
	}
	slices.SortFunc(out, func(a, b Packet) int {
		return cmp.Or(a.Dst.Compare(b.Dst), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port))
	})
	return out
}

// Constants returns the values that the specification compares packets with: the sources and destinations as
// ranges, and ports.
func (c *Cluster) Constants() (src, dst []netip.Prefix, ports []uint16) {
	one := func(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
	src = []netip.Prefix{one(netip.IPv6Loopback()), netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), 8)}
	for _, a := range c.HostAddrs {
		src = append(src, one(a))
	}
	dst = slices.Clone(src)
	src, dst = append(src, c.podCIDRs...), append(dst, c.serviceCIDRs...)
	for a := range c.clusterIPs {
		dst = append(dst, one(a))
	}
	for a := range c.pods {
		src = append(src, one(a))
	}
	for a, f := range c.frontends {
		dst, ports, src = append(dst, one(a.ip)), append(ports, a.port), append(src, f.sources...)
	}
	return src, dst, ports
}
