package rules

import (
	"net/netip"

	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Config has the settings that the ruleset depends on, besides the Services and the Node.
type Config struct {
	// MasqueradeMark is the bit of the packet mark that requests masquerade.
	MasqueradeMark uint32
	// MasqueradeAll masquerades all traffic to ClusterIPs.
	MasqueradeAll bool
	// PodTraffic says how to recognise traffic of the cluster's pods.
	PodTraffic PodTraffic
	// ServiceCIDRs are the ranges of ClusterIPs.
	ServiceCIDRs []netip.Prefix
	// Families are the families to program: those that the kernel supports.
	Families []service.Family
	// Counters says which connections the kernel counts.
	Counters Counters
}

// PodTraffic says how to recognise traffic of pods, as detectLocalMode of kube-proxy does: by source address
// (ClusterCIDR, NodeCIDR) or by the interface on which it arrives (BridgeInterface, InterfaceNamePrefix). At
// most one of both is set.
type PodTraffic struct {
	CIDRs     []netip.Prefix
	Interface string // a name, or a prefix followed by *
}

// match returns the statement that matches traffic of pods; with not, all other traffic. It returns false if
// traffic of pods cannot be recognised in the family.
func (p PodTraffic) match(f service.Family, not bool) (nftables.Statement, bool) {
	if p.Interface != "" {
		return nftables.Interface{Name: p.Interface, Not: not}, true
	}
	if len(prefixesOf(f, p.CIDRs)) > 0 {
		source := []nftables.Field{nftables.SrcAddr}
		return nftables.InSet{Key: source, Set: nftables.PodCIDRs.String(), Not: not}, true
	}
	return nil, false
}

// prefixesOf returns the prefixes of the family, masked and sorted, without those that another one contains:
// the kernel refuses overlapping intervals.
func prefixesOf(f service.Family, prefixes []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range prefixes {
		if p.IsValid() && service.FamilyOf(p.Addr()) == f {
			out = append(out, p.Masked())
		}
	}
	return outermost(out)
}
