package rules

import (
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Priorities of nat hooks; those of translation are from linux/netfilter_ipv4.h.
const (
	priorityDNAT = -100
	priorityLate = -90
	prioritySNAT = 100
)

// Names of chains that do not depend on Services.
const (
	chainServices = "services"
	chainLate     = "unclaimed"
	chainNoPort   = "no-such-port"
)

// baseChain returns a chain that packets enter at a hook.
func baseChain(f service.Family, name, hook string, priority int, rules ...nftables.Rule) nftables.Chain {
	at := &nftables.Hook{Name: hook, Priority: priority}
	return nftables.Chain{Family: f, Name: name, Hook: at, Rules: rules}
}

// baseChains returns the chains that do not depend on any Service.
func baseChains(f service.Family, c Config) []nftables.Chain {
	services := nftables.Rule{nftables.Jump{Chain: chainServices}}
	late := nftables.Rule{nftables.Jump{Chain: chainLate}}
	// Another proxy may take connections to ClusterIPs by TPROXY, which leaves their destination as it is.
	taken := nftables.Rule{nftables.HasSocket{}, nftables.Accept{}}
	return []nftables.Chain{
		baseChain(f, "nat-prerouting", "prerouting", priorityDNAT, services),
		baseChain(f, "nat-output", "output", priorityDNAT, services),
		baseChain(f, "late-prerouting", "prerouting", priorityLate, taken, late),
		baseChain(f, "late-output", "output", priorityLate, late),
		baseChain(f, "nat-postrouting", "postrouting", prioritySNAT, postroutingRules(c)...),
		servicesChain(f),
		lateChain(f),
		{Family: f, Name: chainNoPort, Rules: refuseRules()},
	}
}

// postroutingRules clear the priority that the rules of Services worked on. They masquerade connections with
// the mark, and those of an endpoint to itself, whose replies would otherwise not pass the host.
func postroutingRules(c Config) []nftables.Rule {
	mark := c.MasqueradeMark
	both := []nftables.Field{nftables.SrcAddr, nftables.DstAddr}
	hairpin := nftables.InSet{Key: both, Set: nftables.Hairpin.String()}
	return []nftables.Rule{
		{nftables.Translated{}, nftables.ClearPriority{}},
		{nftables.HasMark{Mask: mark}, nftables.ClearMark{Mask: mark}, nftables.Masquerade{}},
		{nftables.Translated{}, hairpin, nftables.Masquerade{}},
	}
}

// servicesChain returns the chain that decides on every new connection: a frontend has a number, and a number
// has a chain. A packet to another address leaves the last rule at its first lookup, so a priority that a
// socket has set never chooses a chain.
func servicesChain(f service.Family) nftables.Chain {
	source := []nftables.Field{nftables.DstAddr, nftables.CtProto, nftables.DstPort, nftables.SrcAddr}
	return nftables.Chain{Family: f, Name: chainServices, Rules: []nftables.Rule{
		{
			nftables.InSet{Key: nftables.FrontendKey(), Set: nftables.Firewalled.String()},
			nftables.InSet{Key: source, Set: nftables.AllowedSources.String(), Not: true},
			nftables.Drop{},
		},
		{
			nftables.SetPriority{Key: nftables.FrontendKey(), Map: nftables.Services.String()},
			nftables.Dispatch{Key: []nftables.Field{nftables.Priority}, Map: nftables.Shapes.String()},
		},
	}}
}

// lateChain returns the chain for connections that no other rule has translated: another proxy may have done
// so for Services that are not ours, and a hook ends with the first translation. The chain refuses a port
// that a ClusterIP does not have, and drops connections to an address that no Service has. It spares
// addresses of the host itself, because NodeLocal DNSCache binds the ClusterIP of the DNS Service.
func lateChain(f service.Family) nftables.Chain {
	address := []nftables.Field{nftables.DstAddr}
	clusterIP := nftables.InSet{Key: address, Set: nftables.ClusterIPs.String()}
	serviceCIDR := nftables.InSet{Key: address, Set: nftables.ServiceCIDRs.String()}
	notLocal := nftables.AddrLocal{Addr: nftables.DstAddr, Not: true}
	return nftables.Chain{Family: f, Name: chainLate, Rules: []nftables.Rule{
		{clusterIP, notLocal, nftables.Jump{Chain: chainNoPort}},
		{serviceCIDR, notLocal, nftables.Drop{}},
	}}
}
