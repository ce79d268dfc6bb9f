package rules_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// generator makes random input from a seed: few addresses and ports, so that Services claim the same
// frontends, and sometimes invalid values.
type generator struct {
	*rand.Rand
	small bool // few slots: outside the initial user namespace nft sends few elements at a time
}

func newGenerator(seed uint64) generator {
	return generator{Rand: rand.New(rand.NewPCG(seed, 0x6e6674))}
}

// scheduler returns a scheduler, seldom one with a table of hashes, which has many elements.
func (g generator) scheduler() service.Scheduler {
	if g.small || g.chance(85) {
		return pickOne(g, service.Random, service.RoundRobin)
	}
	return pickOne(g, service.Maglev, service.SourceHash)
}

func pickOne[T any](g generator, from ...T) T { return from[g.IntN(len(from))] }

// some returns up to n of from, in any order, sometimes one of them twice.
func some[T any](g generator, n int, from ...T) []T {
	var out []T
	for range g.IntN(n + 1) {
		out = append(out, pickOne(g, from...))
	}
	return out
}

func (g generator) chance(percent int) bool { return g.IntN(100) < percent }

func (g generator) config() rules.Config {
	c := testConfig()
	switch g.IntN(4) {
	case 0:
		c.PodTraffic = rules.PodTraffic{Interface: pickOne(g, "cni0", "veth*")}
	case 1:
		c.PodTraffic = rules.PodTraffic{}
	case 2:
		c.PodTraffic.CIDRs = append(c.PodTraffic.CIDRs, prefixes("10.244.1.0/24 10.0.0.0/8")...)
	}
	c.MasqueradeAll = g.chance(20)
	c.Counters = rules.Counters{Services: g.chance(50), Endpoints: pickOne(g, 0, math.MaxInt)}
	if g.chance(20) {
		c.Families = []service.Family{pickOne(g, service.Families()...)}
	}
	c.ServiceCIDRs = some(g, 4,
		prefixes("10.96.0.0/16 10.96.1.0/24 10.112.0.0/12 fd00:10:96::/112 fd00:10:97::/112 0.0.0.0/0")...)
	return c
}

func (g generator) node() service.Node {
	return service.Node{
		Name: pickOne(g, "n1", "n2", ""), Zone: pickOne(g, "a", "b", ""),
		Addrs:         some(g, 2, addrs("192.0.2.1 2001:db8::1")...),
		NodePortAddrs: some(g, 3, addrs("192.0.2.1 192.0.2.2 2001:db8::1 10.96.0.1")...),
		Scheduler:     pickOne(g, service.Random, service.Random, g.scheduler()),
	}
}

// name returns the name of the i-th Service; one in four has the maximum length.
func name(i int) service.Name {
	if i%4 == 3 {
		return service.Name{Namespace: strings.Repeat("n", 63), Name: fmt.Sprintf("%063d", i)}
	}
	return service.Name{Namespace: "ns" + string(rune('a'+i%3)), Name: fmt.Sprintf("svc-%d", i)}
}

func (g generator) service(i int) *service.Service {
	svc := &service.Service{
		Name:    name(i),
		Created: time.Unix(int64(g.IntN(3)), 0),
		ClusterIPs: some(g, 3,
			addrs("10.96.0.1 10.96.0.2 10.96.0.3 fd00:10:96::1 fd00:10:96::2 fd00:10:96::3")...),
		ExternalIPs:     some(g, 2, addrs("198.51.100.1 203.0.113.1 2001:db8:2::1 10.96.0.1")...),
		LoadBalancerIPs: some(g, 3, addrs("203.0.113.1 203.0.113.2 2001:db8:2::1 2001:db8:2::2")...),
		InternalLocal:   g.chance(25),
		ExternalLocal:   g.chance(40),
	}
	if g.chance(40) {
		svc.Restricted = true
		svc.SourceRanges = some(g, 5,
			prefixes("10.0.0.0/8 10.1.0.0/16 192.0.2.0/24 203.0.113.0/24 0.0.0.0/0 203.0.113.1/32 "+
				"2001:db8::/32 2001:db8::/64 ::/0 192.0.2.77/24")...)
	}
	if g.chance(40) {
		svc.AffinityTimeout = pickOne(g, timeouts()...)
	}
	if g.chance(40) {
		svc.Scheduler, svc.HasScheduler = g.scheduler(), true
	}
	for range g.IntN(4) {
		svc.Ports = append(svc.Ports, service.Port{
			Name:     pickOne(g, "", "a", "b", strings.Repeat("p", 63)),
			Protocol: pickOne(g, service.Protocols()...),
			Port:     pickOne[uint16](g, 1, 53, 80, 65535), NodePort: pickOne[uint16](g, 0, 80, 30000, 30001),
			Endpoints: g.endpoints(),
		})
	}
	return svc
}

// timeouts are those of session affinity.
func timeouts() []time.Duration {
	return []time.Duration{time.Second, 10 * time.Second, time.Hour, 24 * time.Hour}
}

func (g generator) endpoints() []service.Endpoint {
	var out []service.Endpoint
	ports := []uint16{8080, 8080, 8081}
	if g.chance(20) { // many on one address
		ports = []uint16{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 65535}
	}
	for range pickOne(g, 0, 1, 2, 3, 5, 12) {
		addr := netip.AddrFrom4([4]byte{10, 244, byte(g.IntN(2)), byte(g.IntN(6))})
		if g.chance(40) {
			addr = netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(g.IntN(6))})
		}
		ep := service.Endpoint{
			Backend: netip.AddrPortFrom(addr, pickOne(g, ports...)), Node: pickOne(g, "n1", "n1", "n2", ""),
			Ready: g.chance(70), Serving: g.chance(70), Terminating: g.chance(30),
		}
		if g.chance(20) {
			ep.Weight, ep.Drained = pickOne[uint8](g, 1, 2, 4, 100), g.chance(30)
			if g.small {
				ep.Weight %= 5
			}
		}
		if g.chance(80) {
			ep.ZoneHints = some(g, 2, "a", "b")
		}
		if g.chance(30) {
			ep.NodeHints = some(g, 2, "n1", "n2")
		}
		out = append(out, ep)
	}
	return out
}

// change returns another state of the Service, more often a small change than a new one.
func (g generator) change(i int, svc *service.Service) *service.Service {
	if svc == nil || g.chance(30) {
		return g.service(i)
	}
	next := *svc
	switch g.IntN(5) {
	case 4:
		next.Scheduler, next.HasScheduler = g.scheduler(), true
	case 0:
		next.AffinityTimeout = pickOne(g, append(timeouts(), 0, 0)...)
	case 1:
		next.ExternalLocal = !next.ExternalLocal
	default:
		next.Ports = append([]service.Port(nil), svc.Ports...)
		for j := range next.Ports {
			p := &next.Ports[j]
			p.Endpoints = append(append([]service.Endpoint(nil), p.Endpoints...), g.endpoints()...)
			drop := g.IntN(len(p.Endpoints) + 1)
			p.Endpoints = p.Endpoints[drop:]
		}
	}
	return &next
}

// ruleset returns a Ruleset of up to n Services.
func (g generator) ruleset(config rules.Config, slots rules.Slots, n int) *rules.Ruleset {
	r, node := rules.NewRuleset(config), g.node()
	if slots == nil {
		slots = r.Slots
	}
	for i := range g.IntN(n + 1) {
		r.Put(rules.Compile(g.service(i), node, slots, rules.MaxShare))
	}
	return r
}
