package spec

import (
	"net/netip"
	"slices"
)

// Facts say why a packet has its outcomes, for those who compare them with another proxy's.
type Facts struct {
	Owner       string // namespace/name of the Service that has the destination; "": none
	Claims      int    // ports of Services that want the destination
	FromHost    bool   // the source is an address of the host
	FromPod     bool   // by detectLocalMode
	ToHost      bool   // the destination is an address of the host
	ClusterIP   bool   // the destination is one
	ServiceCIDR bool   // the destination is in one
	Reserved    bool   // the node needs the destination itself
	Closed      bool   // no source range of the load balancer can be read
	NotAllowed  bool   // --allowed-external-cidrs does not have the destination
	NodeUnknown bool   // the Node has no address
	One         bool   // of several endpoints the client has one
}

// Facts returns the facts about a packet.
func (c *Cluster) Facts(p Packet) Facts {
	at := address{p.Dst, p.Protocol, p.Port}
	in := func(r netip.Prefix) bool { return r.Contains(p.Dst) }
	f := c.frontends[at]
	out := Facts{
		Claims:   len(c.claims[at]),
		FromHost: c.local(p.Src), FromPod: c.knowsPods(p.Dst) && c.fromPod(p), ToHost: c.local(p.Dst),
		ClusterIP: c.clusterIPs[p.Dst], ServiceCIDR: slices.ContainsFunc(c.serviceCIDRs, in),
		Reserved:    c.reserved(at),
		Closed:      f != nil && f.restricted && len(f.sources) == 0,
		NotAllowed:  len(c.Config.AllowedExternal) > 0 && !slices.ContainsFunc(c.Config.AllowedExternal, in),
		NodeUnknown: len(c.node.primary) == 0,
	}
	if f != nil {
		out.Owner, out.One = f.owner, f.one
	}
	return out
}

// Unicast reports whether an endpoint, load balancer or external IP can be the address.
func Unicast(a netip.Addr) bool { return unicast(a) }
