package desired

import (
	"net/netip"
	"runtime/debug"

	"github.com/nftproxy/nftproxy/proxier/config"
	"github.com/nftproxy/nftproxy/proxier/host"
	"github.com/nftproxy/nftproxy/proxier/state"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Environment is all input of the ruleset except Services: the configuration and the node.
type Environment struct {
	Config rules.Config
	Node   service.Node
	// HealthCheckAddrs are the addresses of healthCheckNodePorts. An unspecified address means every address
	// of its family, and is the only one of that family.
	HealthCheckAddrs []netip.Addr
	// Unrestricted are the families in which nodePorts are on all addresses of the node although
	// nodePortAddresses has "primary", because the Node has no address of the family.
	Unrestricted []service.Family
	// External says which external and load-balancer IPs are programmed.
	External External
}

// NewEnvironment returns the Environment of the node with that name, from the configuration, the Node and
// ServiceCIDR objects in the state, and the addresses of the host.
func NewEnvironment(c *config.Config, name string, s *state.State,
	families []service.Family, hostAddrs []netip.Addr) Environment {
	node := s.Node()
	primary := primaryAddrs(node, c.NodeIP())
	scope := newScope(c, primary, families)
	nodePorts := scope.nodePorts(hostAddrs)
	return Environment{
		Config: rules.Config{
			MasqueradeMark: c.MasqueradeMark(),
			MasqueradeAll:  c.MasqueradeAll(),
			PodTraffic:     podTraffic(c, node),
			ServiceCIDRs:   s.ServiceCIDRs(),
			Families:       families,
			Counters:       c.Counters(host.CPUs(), debug.SetMemoryLimit(-1)),
		},
		Node: service.Node{
			Name:          name,
			Zone:          node.Zone,
			Addrs:         primary,
			NodePortAddrs: nodePorts,
			LoopbackAddrs: c.LoopbackAddrs(),
			Scheduler:     c.Scheduler,
			Reserved:      reserved(c, ownAddrs(nodePorts, c.LoopbackAddrs(), node.Addrs, hostAddrs)),
		},
		HealthCheckAddrs: scope.healthChecks(hostAddrs, families),
		Unrestricted:     scope.unrestricted,
		External:         External{NoExternalIPs: !c.AllowServiceExternalIPs(), Allowed: c.AllowedExternal()},
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
