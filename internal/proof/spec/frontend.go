package spec

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

type timeout = time.Duration

// Kinds of frontends. Several Services may want one address and port: a ClusterIP comes first, then a
// nodePort, a load balancer's address and an external IP (docs/design.md, "Who has a frontend": in the order
// of how hard it is to choose one; ServiceSpec.externalIPs: "not managed by Kubernetes").
const (
	kindClusterIP = iota
	kindNodePort
	kindLoadBalancer
	kindExternal
)

// claim adds the frontends of a Service that no stronger one has.
func (c *Cluster) claim(s *corev1.Service) {
	clusterIPs := addresses(clusterIPsOf(s), anyAddress)
	for _, a := range clusterIPs {
		c.clusterIPs[a] = true
	}
	loadBalancer := c.permitted(addresses(ingress(s), unicast))
	external := c.externalIPs(s)
	ports := portsOf(s)
	for kind, at := range [][]netip.Addr{clusterIPs, c.nodePortAddrs(), loadBalancer, external} {
		for i := range ports {
			port := &ports[i]
			for _, ip := range at {
				// A Service has the families of its ClusterIPs (ServiceSpec.ipFamilies).
				has := func(a netip.Addr) bool { return a.Is4() == ip.Is4() }
				if !slices.ContainsFunc(clusterIPs, has) {
					continue
				}
				number := port.number
				if kind == kindNodePort {
					number = port.nodePort
				}
				c.give(s, port, kind, address{ip, port.protocol, number}, loadBalancer)
			}
		}
	}
}

// give gives an address and port to a port of a Service, unless it is taken.
func (c *Cluster) give(s *corev1.Service, p *port, kind int, at address, loadBalancer []netip.Addr) {
	everywhere, local := c.endpoints(s, p, at.ip.Is4())
	for _, e := range local {
		c.pods[e.Addr()] = true
	}
	if at.port == 0 {
		return
	}
	if c.claims[at] == nil {
		c.claims[at] = map[string]bool{}
	}
	c.claims[at][s.Namespace+"/"+s.Name+":"+p.name] = true
	holder := c.frontends[at]
	if p.twice || c.reserved(at) || holder != nil && holder.kind <= kind {
		return
	}
	f := &frontend{owner: s.Namespace + "/" + s.Name, kind: kind, cluster: kind == kindClusterIP,
		anywhere: everywhere, local: local}
	f.here = s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
	if f.cluster {
		policy := s.Spec.InternalTrafficPolicy
		f.here = policy != nil && *policy == corev1.ServiceInternalTrafficPolicyLocal
	}
	f.affinity, f.one = affinity(s), oneForEach(s)
	if at.port == p.number && !f.cluster && slices.Contains(loadBalancer, at.ip) {
		f.sources, f.restricted = c.sourceRanges(s, at.ip.Is4())
	}
	c.frontends[at] = f
}

// reserved reports whether the kubelet or nftproxy itself needs the address and port: they keep their ports
// (docs/design.md, "Who has a frontend").
func (c *Cluster) reserved(at address) bool {
	return at.protocol == protocolTCP && slices.Contains(c.Config.ReservedPorts, at.port) &&
		slices.Contains(slices.Concat(c.node.addrs, c.HostAddrs), at.ip)
}

// affinity: sessionAffinity ClientIP sends a client to the endpoint that it had, for timeoutSeconds, which
// are between 1 and 86400, and three hours by default (API reference, ClientIPConfig).
func affinity(s *corev1.Service) timeout {
	if s.Spec.SessionAffinity != corev1.ServiceAffinityClientIP {
		return 0
	}
	seconds := int32(corev1.DefaultClientIPServiceAffinitySeconds)
	if c := s.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		if t := *c.ClientIP.TimeoutSeconds; t > 0 && t <= 86400 {
			seconds = t
		}
	}
	return timeout(seconds) * time.Second
}

// ingress returns the addresses of load balancers. With ipMode Proxy the load balancer sends to nodePorts,
// and the node leaves its address alone (KEP-1860).
func ingress(s *corev1.Service) (out []string) {
	for _, in := range s.Status.LoadBalancer.Ingress {
		if in.IPMode == nil || *in.IPMode == corev1.LoadBalancerIPModeVIP {
			out = append(out, in.IP)
		}
	}
	return out
}

// externalIPs returns the external IPs that a Service may have: none without AllowServiceExternalIPs
// (KEP-5707), and none that is an address for ClusterIPs, since whoever writes a Service could have the
// traffic of another one (CVE-2020-8554).
func (c *Cluster) externalIPs(s *corev1.Service) []netip.Addr {
	if c.Config.NoExternalIPs {
		return nil
	}
	out := c.permitted(addresses(s.Spec.ExternalIPs, unicast))
	return slices.DeleteFunc(out, func(a netip.Addr) bool {
		return slices.ContainsFunc(c.serviceCIDRs, func(r netip.Prefix) bool { return r.Contains(a) })
	})
}

// permitted leaves out what --allowed-external-cidrs does not have (docs/configuration.md).
func (c *Cluster) permitted(addrs []netip.Addr) []netip.Addr {
	allowed := c.Config.AllowedExternal
	return slices.DeleteFunc(addrs, func(a netip.Addr) bool {
		in := func(r netip.Prefix) bool { return r.Contains(a) }
		return len(allowed) > 0 && !slices.ContainsFunc(allowed, in)
	})
}

// sourceRanges returns the admitted sources of one family. Ranges of one family do not restrict the other
// one; one that cannot be read admits nobody. If they have the node's own address, the node reaches the
// address also where it is bound to an interface of the node, and so is the source (kube-proxy).
func (c *Cluster) sourceRanges(s *corev1.Service, v4 bool) (out []netip.Prefix, restricted bool) {
	for _, text := range s.Spec.LoadBalancerSourceRanges {
		r, ok := parsePrefix(strings.TrimSpace(text))
		if restricted = restricted || !ok || r.Addr().Is4() == v4; ok && r.Addr().Is4() == v4 {
			out = append(out, r)
		}
	}
	primary, known := c.node.primary[v4]
	if known && slices.ContainsFunc(out, func(r netip.Prefix) bool { return r.Contains(primary) }) {
		for _, a := range c.permitted(addresses(ingress(s), unicast)) {
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return out, restricted
}

// nodePortAddrs returns the addresses that serve nodePorts: those in the ranges of nodePortAddresses, where
// none of a family means all of it, or with "primary", which is the default, the first one of each family
// (KEP-3866). Loopback addresses serve none in nftables mode.
func (c *Cluster) nodePortAddrs() (out []netip.Addr) {
	var ranges []netip.Prefix
	primary, primaries := false, slices.Collect(maps.Values(c.node.primary))
	for _, text := range c.Config.NodePortAddresses {
		if r, ok := parsePrefix(text); ok {
			ranges = append(ranges, r)
		}
		primary = primary || text == "primary"
	}
	for _, a := range slices.Concat(c.HostAddrs, primaries) {
		other := func(r netip.Prefix) bool { return r.Addr().Is4() != a.Is4() }
		family := slices.DeleteFunc(slices.Clone(ranges), other)
		first, known := c.node.primary[a.Is4()]
		in := slices.ContainsFunc(family, func(r netip.Prefix) bool { return r.Contains(a) })
		all := len(family) == 0 && !primary || primary && !known && len(primaries) > 0
		if (in || all || primary && a == first) && !a.IsLoopback() {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
