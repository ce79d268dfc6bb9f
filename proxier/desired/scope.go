package desired

import (
	"net/netip"
	"slices"

	"github.com/nftproxy/nftproxy/proxier/config"
	"github.com/nftproxy/nftproxy/rules/service"
)

// scope is where a node serves nodePorts and health checks: nodePortAddresses, applied to the Node.
type scope struct {
	primary      []netip.Addr   // served whether the host has them or not
	prefixes     []netip.Prefix // served on those addresses that the host has
	unrestricted []service.Family
}

// newScope returns the scope of a node with these primary addresses. As in kube-proxy, "primary" does not
// restrict a family in which the Node has no address other than loopback. A Node without any address is not
// registered yet, so its nodePorts are on none, never on all.
func newScope(c *config.Config, primary []netip.Addr, families []service.Family) scope {
	usePrimary, prefixes := c.NodePortAddresses()
	s := scope{prefixes: prefixes}
	if !usePrimary {
		return s
	}
	s.primary = slices.DeleteFunc(slices.Clone(primary), netip.Addr.IsLoopback)
	for _, f := range families {
		hasAddr := func(a netip.Addr) bool { return service.FamilyOf(a) == f }
		hasPrefix := func(p netip.Prefix) bool { return hasAddr(p.Addr()) }
		listed := slices.ContainsFunc(s.primary, hasAddr) || slices.ContainsFunc(prefixes, hasPrefix)
		if !listed && len(s.primary) > 0 {
			s.prefixes = append(s.prefixes, netip.PrefixFrom(unspecified(f), 0))
			s.unrestricted = append(s.unrestricted, f)
		}
	}
	return s
}

func unspecified(f service.Family) netip.Addr {
	if f == service.IPv4 {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// nodePorts returns the addresses that serve nodePorts, sorted. Loopback addresses never serve them, because
// the reply to a connection from outside could not leave the host. Link-local addresses serve them only if
// nodePortAddresses has a link-local range.
func (s scope) nodePorts(hostAddrs []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(s.addrs(hostAddrs), netip.Addr.IsLoopback)
}

// healthChecks returns the addresses on which healthCheckNodePorts listen, sorted: those of nodePorts and
// loopback addresses. They are every address of a family whose nodePorts are on all addresses. As in
// kube-proxy, this includes addresses that no interface has.
func (s scope) healthChecks(hostAddrs []netip.Addr, families []service.Family) []netip.Addr {
	var out []netip.Addr
	for _, f := range families {
		if slices.Contains(s.prefixes, netip.PrefixFrom(unspecified(f), 0)) {
			out = append(out, unspecified(f))
			continue
		}
		for _, a := range s.addrs(hostAddrs) {
			// A program can listen on an IPv6 link-local address only together with an interface.
			if service.FamilyOf(a) == f && !(a.Is6() && a.IsLinkLocalUnicast()) {
				out = append(out, a)
			}
		}
	}
	return out
}

// addrs returns the addresses of the scope, sorted.
func (s scope) addrs(hostAddrs []netip.Addr) []netip.Addr {
	addrs := slices.Clone(s.primary)
	for _, a := range hostAddrs {
		covers := func(p netip.Prefix) bool {
			return p.Contains(a) && (!a.IsLinkLocalUnicast() || p.Addr().IsLinkLocalUnicast())
		}
		if slices.ContainsFunc(s.prefixes, covers) {
			addrs = append(addrs, a)
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs)
}
