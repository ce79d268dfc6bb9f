package rules

import "cmp"

// Chain is a chain with its rules.
type Chain struct {
	Family Family
	Name   string
	Hook   *Hook // nil: reached by jump or goto only
	Rules  []Rule
}

// Compare orders chains by table and name.
func (c Chain) Compare(d Chain) int {
	return cmp.Or(cmp.Compare(c.Family, d.Family), cmp.Compare(c.Name, d.Name))
}

// Hook is where the kernel enters a base chain. All are of type nat: they see
// the first packet of a connection and nothing else.
type Hook struct {
	Name     string // prerouting, input, output or postrouting
	Priority int
}

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
func baseChains(f Family, c Config) []Chain {
	services, late := []Rule{{Jump{chainServices}}}, []Rule{{Jump{chainLate}}}
	return []Chain{
		{f, "nat-prerouting", &Hook{"prerouting", priorityDNAT}, services},
		{f, "nat-output", &Hook{"output", priorityDNAT}, services},
		{f, "late-prerouting", &Hook{"prerouting", priorityLate}, late},
		{f, "late-output", &Hook{"output", priorityLate}, late},
		{f, "nat-postrouting", &Hook{"postrouting", prioritySNAT}, []Rule{
			{HasMark{c.MasqueradeMark}, ClearMark{c.MasqueradeMark}, Masquerade{}},
			{Translated{}, InSet{Key: []Field{SrcAddr, DstAddr}, Set: Hairpin.String()}, Masquerade{}},
		}},
		servicesChain(f),
		lateChain(f),
		{Family: f, Name: chainNoPort, Rules: refuseRules()},
	}
}

// servicesChain decides on every new connection.
func servicesChain(f Family) Chain {
	return Chain{Family: f, Name: chainServices, Rules: []Rule{
		{
			InSet{Key: frontendKey(), Set: Firewalled.String()},
			InSet{Key: []Field{DstAddr, CtProto, DstPort, SrcAddr}, Set: AllowedSources.String(), Not: true},
			Drop{},
		},
		{Dispatch{Key: frontendKey(), Map: Services.String()}},
	}}
}

// lateChain decides on connections that nobody has translated, which another proxy
// may do whose Services are not ours: hooks end with the first translation. A port
// that a ClusterIP does not have is refused and a ClusterIP that no Service has is
// dropped, but for addresses that are the host's own (NodeLocal DNSCache binds the
// DNS ClusterIP).
func lateChain(f Family) Chain {
	notLocal := AddrLocal{Addr: DstAddr, Not: true}
	return Chain{Family: f, Name: chainLate, Rules: []Rule{
		{InSet{Key: []Field{DstAddr}, Set: ClusterIPs.String()}, notLocal, Jump{chainNoPort}},
		{InSet{Key: []Field{DstAddr}, Set: ServiceCIDRs.String()}, notLocal, Drop{}},
	}}
}

// stickyBaseChains returns the chains that remember clients after translation,
// for every frontend in the map remember. They are there only where a sticky
// Service is, so that nobody else's connections pay for them.
func stickyBaseChains(f Family) []Chain {
	jump := []Rule{{Jump{chainAffinity}}}
	affinity := Chain{Family: f, Name: chainAffinity}
	for _, p := range Protocols() {
		// The port is compared so that nft knows the protocol when it reads its own listing.
		affinity.Rules = append(affinity.Rules, Rule{
			IsPort{Protocol: p, Port: 0, Not: true},
			Dispatch{Key: []Field{OrigDstAddr, L4Proto, OrigDstPort}, Map: RememberMap.String()},
		})
	}
	return []Chain{
		{f, "remember-input", &Hook{"input", priorityRemember}, jump},
		{f, "remember-postrouting", &Hook{"postrouting", priorityRemember}, jump},
		affinity,
	}
}
