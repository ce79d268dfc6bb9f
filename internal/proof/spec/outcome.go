package spec

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Packet is the first packet of a connection.
type Packet struct {
	Src, Dst  netip.Addr
	Protocol  uint8
	Port      uint16
	Interface string // on which it arrived; "" for a packet of the host itself
	Taken     bool   // another proxy of the node took it for a socket of its own
	Marked    bool   // somebody has set the bit masqueradeBit of its mark before
}

// Verdict is what becomes of a connection.
type Verdict uint8

const (
	Untouched Verdict = iota
	Translated
	Refused
	Dropped
)

// String returns the verdict in one word.
func (v Verdict) String() string {
	return [...]string{"untouched", "endpoint", "refused", "dropped"}[v]
}

// Outcome is what may become of a connection.
type Outcome struct {
	Verdict     Verdict
	Endpoint    netip.AddrPort // of Translated
	Masqueraded bool           // the other side sees an address of the node
	Reset       bool           // Refused by a TCP reset, otherwise by an ICMP error
}

// protocolTCP is the number that IANA gives to TCP.
const protocolTCP = 6

// Allowed returns the outcomes that the packet may have, and how long its client is to be remembered. Each of
// several endpoints must be possible, as a Service balances the load among all
// (https://kubernetes.io/docs/concepts/services-networking/service/).
func (c *Cluster) Allowed(p Packet) (allowed []Outcome, affinity time.Duration) {
	f, ok := c.frontends[address{p.Dst, p.Protocol, p.Port}]
	if !ok {
		return []Outcome{c.unclaimed(p)}, 0
	}
	// loadBalancerSourceRanges: "traffic through the cloud-provider load-balancer will be restricted to the
	// specified client IPs" (API reference, ServiceSpec). kube-proxy drops the others.
	if f.restricted && !slices.ContainsFunc(f.sources, func(r netip.Prefix) bool { return r.Contains(p.Src) }) {
		return []Outcome{{Verdict: Dropped}}, 0
	}
	endpoints, masqueraded := f.anywhere, p.Marked
	switch own := c.local(p.Src); {
	// A Service without an endpoint refuses (KEP-3866, "no endpoints": reject; also without a local one, as
	// otherwise a load balancer would not notice).
	case len(f.anywhere) == 0:
		return []Outcome{refusal(p)}, 0
	case f.cluster && f.here:
		// internalTrafficPolicy Local: only endpoints on the node of the client; without one "traffic is
		// dropped" (API reference, ServiceSpec.internalTrafficPolicy; KEP-2086).
		endpoints = f.local
		fallthrough
	case f.cluster:
		// A client outside of the pod network cannot route the address of a pod back by itself:
		// --masquerade-all and detectLocalMode say whose source is replaced (kube-proxy reference).
		masqueraded = masqueraded || c.Config.MasqueradeAll || c.knowsPods(p.Dst) && !c.fromPod(p)
	case !f.here:
		// externalTrafficPolicy Cluster: "obscures the client source IP" (Service documentation), as replies
		// have to come back through this node.
		masqueraded = true
	// externalTrafficPolicy Local: clients inside of the cluster reach all endpoints, as if through the load
	// balancer (KEP-3866; kube-proxy's short circuit). The node's own address would be a martian elsewhere.
	case own:
		masqueraded = true
	case c.knowsPods(p.Dst) && c.fromPod(p):
	default:
		// For others it "preserves the client source IP" and drops without a local endpoint (Service
		// documentation, ServiceSpec.externalTrafficPolicy).
		endpoints = f.local
	}
	if len(endpoints) == 0 {
		return []Outcome{{Verdict: Dropped}}, 0
	}
	for _, e := range endpoints {
		// A pod that reaches itself would get replies that did not pass the node (hairpin).
		self := p.Src == e.Addr() && c.pods[e.Addr()] && e != netip.AddrPortFrom(p.Dst, p.Port)
		seen := (masqueraded || self) && c.leaves(p, e.Addr())
		allowed = append(allowed, Outcome{Verdict: Translated, Endpoint: e, Masqueraded: seen})
	}
	return allowed, f.affinity
}

// unclaimed is for packets to no port of a Service. A ClusterIP refuses its other ports, and addresses of the
// ServiceCIDRs that no Service has are dropped (KEP-3866, "rejecting or dropping traffic"; nftproxy spares
// addresses of the host, which NodeLocal DNSCache binds, and what another proxy has taken).
func (c *Cluster) unclaimed(p Packet) Outcome {
	spared := c.local(p.Dst) || p.Taken && p.Interface != ""
	switch {
	case spared:
	case c.clusterIPs[p.Dst]:
		return refusal(p)
	case slices.ContainsFunc(c.serviceCIDRs, func(r netip.Prefix) bool { return r.Contains(p.Dst) }):
		return Outcome{Verdict: Dropped}
	}
	return Outcome{Masqueraded: p.Marked && c.leaves(p, p.Dst) && !p.Taken}
}

// refusal is how a host refuses: TCP by a reset (RFC 9293, 3.5.2), anything else by port unreachable
// (RFC 1122, 3.2.2.1).
func refusal(p Packet) Outcome { return Outcome{Verdict: Refused, Reset: p.Protocol == protocolTCP} }

// leaves reports whether the packet is sent. One that arrives and stays on the node is delivered as it is:
// its replies start on the node anyway.
func (c *Cluster) leaves(p Packet, to netip.Addr) bool { return p.Interface == "" || !c.local(to) }

func (c *Cluster) local(a netip.Addr) bool { return a.IsLoopback() || slices.Contains(c.HostAddrs, a) }

// knowsPods reports whether detectLocalMode tells pods from others in the family of the address. Where it
// does not, nothing counts as from outside (kube-proxy reference, --cluster-cidr).
func (c *Cluster) knowsPods(of netip.Addr) bool {
	return c.Config.PodInterface != "" || slices.ContainsFunc(c.podCIDRs, func(r netip.Prefix) bool {
		return r.Addr().Is4() == of.Is4()
	})
}

// fromPod reports whether a pod has sent the packet: by detectLocalMode ClusterCIDR or NodeCIDR, one with an
// address in the range; by BridgeInterface or InterfaceNamePrefix, one that arrives on such an interface
// (KEP-2450).
func (c *Cluster) fromPod(p Packet) bool {
	if name := c.Config.PodInterface; name != "" {
		prefix, any := strings.CutSuffix(name, "*")
		return p.Interface == name || any && strings.HasPrefix(p.Interface, prefix)
	}
	return slices.ContainsFunc(c.podCIDRs, func(r netip.Prefix) bool { return r.Contains(p.Src) })
}
