package rules

import (
	"net/netip"

	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Config is what the ruleset depends on beside Services and the Node.
type Config struct {
	// MasqueradeMark is the one bit of the packet mark that asks for masquerade.
	MasqueradeMark uint32
	// MasqueradeAll masquerades all traffic to ClusterIPs.
	MasqueradeAll bool
	// PodTraffic tells traffic of the cluster's pods from other traffic.
	PodTraffic PodTraffic
	// ServiceCIDRs are the ranges that ClusterIPs are allocated from.
	ServiceCIDRs []netip.Prefix
	// Families are the tables to program; a kernel may lack one.
	Families []service.Family
}

// PodTraffic says how pods' traffic is recognised, kube-proxy's detectLocalMode:
// by source address (ClusterCIDR, NodeCIDR) or by the interface on which it
// arrives (BridgeInterface, InterfaceNamePrefix). At most one of both is set.
type PodTraffic struct {
	CIDRs     []netip.Prefix
	Interface string // a name, or a prefix followed by *
}

// match returns the statement for "comes from a pod", or for its opposite.
// There is none where pods' traffic of the family cannot be recognised.
func (p PodTraffic) match(f service.Family, not bool) (nftables.Statement, bool) {
	if p.Interface != "" {
		return nftables.Interface{Name: p.Interface, Not: not}, true
	}
	if len(prefixesOf(f, p.CIDRs)) > 0 {
		return nftables.InSet{Key: []nftables.Field{nftables.SrcAddr}, Set: nftables.PodCIDRs.String(), Not: not}, true
	}
	return nil, false
}

// prefixesOf returns the prefixes of the family, masked, sorted, without those
// that another one contains: the kernel refuses overlapping intervals.
func prefixesOf(f service.Family, prefixes []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range prefixes {
		if p.IsValid() && service.FamilyOf(p.Addr()) == f {
			out = append(out, p.Masked())
		}
	}
	return outermost(out)
}
