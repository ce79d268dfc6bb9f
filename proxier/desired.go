package proxier

import (
	"net/netip"
	"slices"

	"github.com/nftproxy/nftproxy/proxier/config"
	"github.com/nftproxy/nftproxy/proxier/state"
	"github.com/nftproxy/nftproxy/rules"
)

// ground is what all Services stand on: what the ruleset depends on beside them.
type ground struct {
	config rules.Config
	node   rules.Node
}

// newGround puts together what is configured, what is known of our Node and the
// ServiceCIDRs, and the addresses that the host has.
func newGround(c *config.Config, name string, s *state.State, families []rules.Family, hostAddrs []netip.Addr) ground {
	node := s.Node()
	primary := primaryAddrs(node, c.NodeIP())
	return ground{
		config: rules.Config{
			MasqueradeMark: c.MasqueradeMark(),
			MasqueradeAll:  c.MasqueradeAll(),
			PodTraffic:     podTraffic(c, node),
			ServiceCIDRs:   s.ServiceCIDRs(),
			Families:       families,
		},
		node: rules.Node{
			Name:          name,
			Zone:          node.Zone,
			Addrs:         primary,
			NodePortAddrs: nodePortAddrs(c, primary, hostAddrs),
		},
	}
}

// podTraffic says how pods' traffic is told by the configured detectLocalMode.
func podTraffic(c *config.Config, node state.Node) rules.PodTraffic {
	switch c.Kube.DetectLocalMode {
	case config.LocalModeNodeCIDR:
		return rules.PodTraffic{CIDRs: node.PodCIDRs}
	case config.LocalModeBridgeInterface:
		return rules.PodTraffic{Interface: c.Kube.DetectLocal.BridgeInterface}
	case config.LocalModeInterfaceNamePrefix:
		return rules.PodTraffic{Interface: c.Kube.DetectLocal.InterfaceNamePrefix + "*"}
	}
	return rules.PodTraffic{CIDRs: c.ClusterCIDRs()}
}

// primaryAddrs returns the node's primary addresses, with the configured bind
// address in place of that of its family.
func primaryAddrs(node state.Node, bind netip.Addr) []netip.Addr {
	if !bind.IsValid() {
		return node.Primary
	}
	addrs := []netip.Addr{bind}
	for _, a := range node.Primary {
		if rules.FamilyOf(a) != rules.FamilyOf(bind) {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// nodePortAddrs returns the addresses that nodePorts are reached on, sorted. None
// known means none, never all. Loopback addresses never are: the reply to a
// connection from outside could not leave. Link-local addresses are only where
// nodePortAddresses names a range of them.
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
