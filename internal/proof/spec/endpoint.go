package spec

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// endpoint is an endpoint of a port in one slice.
type endpoint struct {
	at                          netip.AddrPort
	ready, draining, terminates bool
	here                        bool // on this node
	zones, nodes                []string
}

// endpoints returns the endpoints that serve a port in one family: those for clients that any endpoint may
// serve, and those on this node.
func (c *Cluster) endpoints(s *corev1.Service, p *port, v4 bool) (anywhere, local []netip.AddrPort) {
	all := c.present(s, p, v4)
	here := slices.DeleteFunc(slices.Clone(all), func(e endpoint) bool { return !e.here })
	return addrPorts(c.hinted(usable(all))), addrPorts(usable(here))
}

// usable returns the ready endpoints. If there is none, those that terminate and still serve are better than
// nothing (KEP-1669); this counts for the node and for the cluster each by itself.
func usable(all []endpoint) []endpoint {
	ready := slices.DeleteFunc(slices.Clone(all), func(e endpoint) bool { return !e.ready })
	if len(ready) > 0 {
		return ready
	}
	return slices.DeleteFunc(slices.Clone(all), func(e endpoint) bool { return !e.draining })
}

// hinted returns the endpoints that the hints give to this node or its zone (KEP-3015, KEP-2433): if every
// ready endpoint has a hint for a node and one is for this node, those; if every one has a hint for a zone
// and one is for this zone, those; otherwise all.
func (c *Cluster) hinted(all []endpoint) []endpoint {
	if len(all) == 0 || !all[0].ready {
		return all
	}
	for _, hint := range []struct {
		of  func(endpoint) []string
		own string
	}{
		{func(e endpoint) []string { return e.nodes }, c.NodeName},
		{func(e endpoint) []string { return e.zones }, c.node.zone},
	} {
		without := func(e endpoint) bool { return len(hint.of(e)) == 0 }
		ours := slices.DeleteFunc(slices.Clone(all), func(e endpoint) bool {
			return hint.own == "" || !slices.Contains(hint.of(e), hint.own)
		})
		if !slices.ContainsFunc(all, without) && len(ours) > 0 {
			return ours
		}
	}
	return all
}

// present returns the endpoints of a port in all slices of the Service: those with its name and protocol
// (API reference, EndpointPort.name). Of an address and port that is there more than once, what does not
// terminate counts: the network gave the address to another pod (KEP-752; kube-proxy's cache of slices).
func (c *Cluster) present(s *corev1.Service, p *port, v4 bool) (all []endpoint) {
	for _, slice := range c.slices {
		_, headless := slice.Labels[corev1.IsHeadlessService]
		if slice.Namespace != s.Namespace || slice.Labels[discoveryv1.LabelServiceName] != s.Name || headless ||
			slice.AddressType != discoveryv1.AddressTypeIPv4 && slice.AddressType != discoveryv1.AddressTypeIPv6 ||
			(slice.AddressType == discoveryv1.AddressTypeIPv4) != v4 {
			continue
		}
		for _, number := range numbers(slice, p) {
			for i := range slice.Endpoints {
				e, ok := c.newEndpoint(&slice.Endpoints[i], number, v4)
				if ok && !weightless(s, e.at.Addr(), slice.Endpoints[i].Zone) {
					all = append(all, e)
				}
			}
		}
	}
	reused := map[netip.AddrPort]bool{}
	for _, e := range all {
		reused[e.at] = reused[e.at] || !e.terminates
	}
	return slices.DeleteFunc(all, func(e endpoint) bool { return e.terminates && reused[e.at] })
}

// numbers returns the numbers of the ports of a slice with the name and protocol.
func numbers(slice *discoveryv1.EndpointSlice, p *port) (out []uint16) {
	for _, sp := range slice.Ports {
		name, protocol := "", corev1.ProtocolTCP // the defaults of the API reference
		if sp.Name != nil {
			name = *sp.Name
		}
		if sp.Protocol != nil {
			protocol = *sp.Protocol
		}
		if n, ok := protocolNumber(protocol); sp.Port != nil && *sp.Port > 0 && *sp.Port <= 65535 &&
			ok && n == p.protocol && name == p.name {
			out = append(out, uint16(*sp.Port))
		}
	}
	return out
}

// newEndpoint reads an endpoint. Its first address counts, and conditions that are not set are ready, serving
// and not terminating (API reference, Endpoint, EndpointConditions).
func (c *Cluster) newEndpoint(e *discoveryv1.Endpoint, port uint16, v4 bool) (endpoint, bool) {
	if len(e.Addresses) == 0 {
		return endpoint{}, false
	}
	a, ok := parseAddress(e.Addresses[0])
	if !ok || !unicast(a) || a.Is4() != v4 {
		return endpoint{}, false
	}
	is := func(b *bool, unset bool) bool { return b == nil && unset || b != nil && *b }
	out := endpoint{at: netip.AddrPortFrom(a, port), ready: is(e.Conditions.Ready, true),
		terminates: is(e.Conditions.Terminating, false)}
	out.draining = !out.ready && is(e.Conditions.Serving, true) && out.terminates
	out.here = e.NodeName != nil && *e.NodeName != "" && *e.NodeName == c.NodeName
	if e.Hints != nil {
		for _, z := range e.Hints.ForZones {
			out.zones = append(out.zones, z.Name)
		}
		for _, n := range e.Hints.ForNodes {
			out.nodes = append(out.nodes, n.Name)
		}
	}
	return out, true
}

func addrPorts(all []endpoint) (out []netip.AddrPort) {
	for _, e := range all {
		out = append(out, e.at)
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return slices.Compact(out)
}
