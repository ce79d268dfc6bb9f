package desired

import (
	"net/netip"
	"slices"

	"github.com/nftproxy/nftproxy/proxier/config"
	"github.com/nftproxy/nftproxy/proxier/state"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Environment is all input of the ruleset except Services: the configuration and the node.
type Environment struct {
	Config   rules.Config
	Node     service.Node
	External External
}

// NewEnvironment returns the Environment of the node with that name, from the configuration, the Node and
// ServiceCIDR objects in the state, and the addresses of the host.
func NewEnvironment(c *config.Config, name string, s *state.State,
	families []service.Family, hostAddrs []netip.Addr) Environment {
	node := s.Node()
	primary := primaryAddrs(node, c.NodeIP())
	return Environment{
		Config: rules.Config{
			MasqueradeMark: c.MasqueradeMark(),
			MasqueradeAll:  c.MasqueradeAll(),
			PodTraffic:     podTraffic(c, node),
			ServiceCIDRs:   s.ServiceCIDRs(),
			Families:       families,
		},
		Node: service.Node{
			Name:          name,
			Zone:          node.Zone,
			Addrs:         primary,
			NodePortAddrs: nodePortAddrs(c, primary, hostAddrs),
		},
		External: External{NoExternalIPs: !c.AllowServiceExternalIPs(), Allowed: c.AllowedExternal()},
	}
}

// podTraffic returns how the rules recognise traffic from pods, for the configured detectLocalMode.
func podTraffic(c *config.Config, node state.Node) rules.PodTraffic {
	if name := c.PodInterface(); name != "" {
		return rules.PodTraffic{Interface: name}
	}
	if c.Kube.DetectLocalMode == config.LocalModeNodeCIDR {
		return rules.PodTraffic{CIDRs: node.PodCIDRs}
	}
	return rules.PodTraffic{CIDRs: c.ClusterCIDRs()}
}

// primaryAddrs returns the node's primary addresses. The configured bind address replaces that of its family.
func primaryAddrs(node state.Node, bind netip.Addr) []netip.Addr {
	if !bind.IsValid() {
		return node.Primary
	}
	addrs := []netip.Addr{bind}
	for _, a := range node.Primary {
		if service.FamilyOf(a) != service.FamilyOf(bind) {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// nodePortAddrs returns the addresses that serve nodePorts, sorted. Loopback addresses never serve them,
// because the reply to a connection from outside could not leave the host. Link-local addresses serve them
// only if nodePortAddresses has a link-local range.
func nodePortAddrs(c *config.Config, primary, hostAddrs []netip.Addr) []netip.Addr {
	usePrimary, prefixes := c.NodePortAddresses()
	var addrs []netip.Addr
	if usePrimary {
		addrs = append(addrs, primary...)
	}
	for _, a := range hostAddrs {
		covers := func(p netip.Prefix) bool {
			return p.Contains(a) && (!a.IsLinkLocalUnicast() || p.Addr().IsLinkLocalUnicast())
		}
		if slices.ContainsFunc(prefixes, covers) {
			addrs = append(addrs, a)
		}
	}
	addrs = slices.DeleteFunc(addrs, netip.Addr.IsLoopback)
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs)
}
