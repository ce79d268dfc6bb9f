package rules

import (
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// counts has the number of elements of the sets that grow with the Services. The Ruleset keeps it up to date
// with each change: to build all elements of 50,000 Services in order to count them takes 0.15 s.
type counts map[nftables.SetID]int

// entry adds the elements of an entry, by times.
func (c counts) entry(e *Entry, by int) {
	f := service.FamilyOf(e.Frontend.Addr)
	add := func(k nftables.SetKind, n int) { c[nftables.SetID{Family: f, Kind: k}] += by * n }
	add(nftables.Services, 1)
	if e.Restricted {
		add(nftables.Firewalled, 1)
		add(nftables.AllowedSources, len(e.Sources))
	}
	for _, choice := range e.choices() {
		add(choice.set(), len(choice.bySlot))
		if choice.numbers != nil {
			add(choice.backends, distinct(choice.numbers))
		}
	}
}

// Counts returns the number of elements that each set should have in the kernel. Its cost depends on the
// number of shapes and not on the number of Services.
func (r *Ruleset) Counts() map[nftables.SetID]int {
	all := map[nftables.SetID]int{}
	for id, n := range r.counts {
		all[id] = n
	}
	for _, f := range r.config.Families {
		all[nftables.SetID{Family: f, Kind: nftables.ServiceCIDRs}] = len(prefixesOf(f, r.config.ServiceCIDRs))
		all[nftables.SetID{Family: f, Kind: nftables.PodCIDRs}] = len(prefixesOf(f, r.config.PodTraffic.CIDRs))
	}
	for s := range r.shapes {
		if !s.shape.isPart() {
			all[nftables.SetID{Family: s.family, Kind: nftables.Shapes}]++
		}
	}
	for id := range r.unused {
		all[id.Set]++
	}
	return all
}
