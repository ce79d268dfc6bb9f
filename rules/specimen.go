package rules

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Specimen is a rule that a ruleset can have, and a hook that it runs in.
type Specimen struct {
	Hook nftables.Hook
	Rule nftables.Rule
}

// Specimens returns the sets and the rules that a ruleset of the family can have, each rule once for every
// hook from which packets reach it. They come from rulesets with a Service of every kind, so a kernel that
// accepts them accepts every ruleset.
func Specimens(f service.Family) (sets []nftables.Set, specimens []Specimen) {
	cidr := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if f == service.IPv6 {
		cidr = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	const mark = 1 << 14
	seen := map[string]bool{}
	for _, pods := range []PodTraffic{{CIDRs: []netip.Prefix{cidr}}, {Interface: "pod*"}} {
		r := specimenRuleset(Config{MasqueradeMark: mark, PodTraffic: pods, Families: []service.Family{f}})
		sets = r.sets(f)
		for _, c := range r.Chains(f) {
			if c.Hook == nil {
				continue
			}
			for _, rule := range r.reachable(c) {
				if id := fmt.Sprint(*c.Hook, rule.Text(f)); !seen[id] {
					seen[id] = true
					specimens = append(specimens, Specimen{*c.Hook, rule})
				}
			}
		}
	}
	return sets, specimens
}

// specimenRuleset returns a ruleset with a Service of every kind: without endpoints, with a remote one, and
// with local ones and a remote one, for both traffic policies, with and without session affinity, and with
// each scheduler.
func specimenRuleset(c Config) *Ruleset {
	r := NewRuleset(c)
	node := service.Node{Name: "here"}
	addr := netip.MustParseAddr("192.0.2.1")
	if c.Families[0] == service.IPv6 {
		addr = netip.MustParseAddr("2001:db8::1")
	}
	next := func() netip.Addr { addr = addr.Next(); return addr }
	endpoint := func(node string) service.Endpoint {
		backend := netip.AddrPortFrom(next(), 80)
		return service.Endpoint{Backend: backend, Node: node, Ready: true, Serving: true}
	}
	few, several := []service.Endpoint{endpoint("there")},
		[]service.Endpoint{endpoint("here"), endpoint("here"), endpoint("there")}
	put := func(endpoints []service.Endpoint, local bool, timeout time.Duration, by service.Scheduler) {
		svc := &service.Service{
			Name:       service.Name{Namespace: "probe", Name: fmt.Sprint(r.Services())},
			ClusterIPs: []netip.Addr{next()}, ExternalIPs: []netip.Addr{next()},
			InternalLocal: local, ExternalLocal: local, AffinityTimeout: timeout,
			Scheduler: by, HasScheduler: true,
			Ports: []service.Port{{Protocol: service.TCP, Port: 80, Endpoints: endpoints}},
		}
		r.Put(Compile(svc, node, r.Slots, MaxShare))
	}
	for _, local := range []bool{false, true} {
		for _, endpoints := range [][]service.Endpoint{nil, few, several} {
			for _, timeout := range []time.Duration{0, time.Second} {
				put(endpoints, local, timeout, service.Random)
			}
		}
		for _, by := range service.Schedulers() {
			put(several, local, 0, by)
		}
	}
	return r
}

// reachable returns the rules of the chain and of all chains to which it leads by jumps and verdict maps.
func (r *Ruleset) reachable(from nftables.Chain) (rules []nftables.Rule) {
	f := from.Family
	chains, dispatched := map[string]nftables.Chain{}, map[string][]string{}
	for _, c := range r.Chains(f) {
		chains[c.Name] = c
	}
	for e := range r.elements() {
		if m := e.Set.Kind.String(); e.Chain != "" && !slices.Contains(dispatched[m], e.Chain) {
			dispatched[m] = append(dispatched[m], e.Chain)
		}
	}
	seen := map[string]bool{}
	var walk func(nftables.Chain)
	walk = func(c nftables.Chain) {
		if seen[c.Name] {
			return
		}
		seen[c.Name] = true
		for _, rule := range c.Rules {
			rules = append(rules, rule)
			for _, s := range rule {
				set, jump := nftables.Uses(s)
				for _, name := range append(dispatched[set], jump) {
					if next, ok := chains[name]; ok {
						walk(next)
					}
				}
			}
		}
	}
	walk(from)
	return rules
}
