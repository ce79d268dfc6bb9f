package rules

import (
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Priorities of nat hooks, from linux/netfilter_ipv4.h. Remembering a client
// comes one before source translation: the first chain that translates ends the
// walk of a hook, and it may be a CNI plugin's.
const (
	priorityDNAT     = -100
	priorityLate     = -90
	priorityRemember = 99
	prioritySNAT     = 100
)

// Names of chains that are there whatever the Services are.
const (
	chainServices = "services"
	chainLate     = "unclaimed"
	chainNoPort   = "no-such-port"
	chainAffinity = "affinity"
)

// baseChains returns the chains that do not depend on any Service.
func baseChains(f service.Family, c Config) []nftables.Chain {
	services, late := []nftables.Rule{{nftables.Jump{Chain: chainServices}}}, []nftables.Rule{{nftables.Jump{Chain: chainLate}}}
	return []nftables.Chain{
		{Family: f, Name: "nat-prerouting", Hook: &nftables.Hook{Name: "prerouting", Priority: priorityDNAT}, Rules: services},
		{Family: f, Name: "nat-output", Hook: &nftables.Hook{Name: "output", Priority: priorityDNAT}, Rules: services},
		{Family: f, Name: "late-prerouting", Hook: &nftables.Hook{Name: "prerouting", Priority: priorityLate}, Rules: late},
		{Family: f, Name: "late-output", Hook: &nftables.Hook{Name: "output", Priority: priorityLate}, Rules: late},
		{Family: f, Name: "nat-postrouting", Hook: &nftables.Hook{Name: "postrouting", Priority: prioritySNAT}, Rules: []nftables.Rule{
			{nftables.HasMark{Mask: c.MasqueradeMark}, nftables.ClearMark{Mask: c.MasqueradeMark}, nftables.Masquerade{}},
			{nftables.Translated{}, nftables.InSet{Key: []nftables.Field{nftables.SrcAddr, nftables.DstAddr}, Set: nftables.Hairpin.String()}, nftables.Masquerade{}},
		}},
		servicesChain(f),
		lateChain(f),
		{Family: f, Name: chainNoPort, Rules: refuseRules()},
	}
}

// servicesChain decides on every new connection.
func servicesChain(f service.Family) nftables.Chain {
	return nftables.Chain{Family: f, Name: chainServices, Rules: []nftables.Rule{
		{
			nftables.InSet{Key: nftables.FrontendKey(), Set: nftables.Firewalled.String()},
			nftables.InSet{Key: []nftables.Field{nftables.DstAddr, nftables.CtProto, nftables.DstPort, nftables.SrcAddr}, Set: nftables.AllowedSources.String(), Not: true},
			nftables.Drop{},
		},
		{nftables.Dispatch{Key: nftables.FrontendKey(), Map: nftables.Services.String()}},
	}}
}

// lateChain decides on connections that nobody has translated, which another proxy
// may do whose Services are not ours: hooks end with the first translation. A port
// that a ClusterIP does not have is refused and a ClusterIP that no Service has is
// dropped, but for addresses that are the host's own (NodeLocal DNSCache binds the
// DNS ClusterIP).
func lateChain(f service.Family) nftables.Chain {
	notLocal := nftables.AddrLocal{Addr: nftables.DstAddr, Not: true}
	return nftables.Chain{Family: f, Name: chainLate, Rules: []nftables.Rule{
		{nftables.InSet{Key: []nftables.Field{nftables.DstAddr}, Set: nftables.ClusterIPs.String()}, notLocal, nftables.Jump{Chain: chainNoPort}},
		{nftables.InSet{Key: []nftables.Field{nftables.DstAddr}, Set: nftables.ServiceCIDRs.String()}, notLocal, nftables.Drop{}},
	}}
}

// stickyBaseChains returns the chains that remember clients after translation,
// for every frontend in the map remember. They are there only where a sticky
// Service is, so that nobody else's connections pay for them.
func stickyBaseChains(f service.Family) []nftables.Chain {
	jump := []nftables.Rule{{nftables.Jump{Chain: chainAffinity}}}
	affinity := nftables.Chain{Family: f, Name: chainAffinity}
	for _, p := range service.Protocols() {
		// The port is compared so that nft knows the protocol when it reads its own listing.
		affinity.Rules = append(affinity.Rules, nftables.Rule{
			nftables.IsPort{Protocol: p, Port: 0, Not: true},
			nftables.Dispatch{Key: []nftables.Field{nftables.OrigDstAddr, nftables.L4Proto, nftables.OrigDstPort}, Map: nftables.RememberMap.String()},
		})
	}
	return []nftables.Chain{
		{Family: f, Name: "remember-input", Hook: &nftables.Hook{Name: "input", Priority: priorityRemember}, Rules: jump},
		{Family: f, Name: "remember-postrouting", Hook: &nftables.Hook{Name: "postrouting", Priority: priorityRemember}, Rules: jump},
		affinity,
	}
}
