package rules

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/nftproxy/nftproxy/rules/service"
)

// Loopback is a nodePort on a loopback address of the node, with the endpoints that serve it there. It makes
// no rules, because the kernel does not route a connection between a loopback and another address: a proxy in
// user space serves it.
type Loopback struct {
	Service  service.Name
	Frontend service.Frontend
	Backends []service.Backend
	Affinity time.Duration // 0: each connection gets any endpoint
}

// loopback adds the loopback frontends of a port in one family. As in kube-proxy there are none for UDP and
// SCTP, and policy Local means the endpoints on this node here, although clients are on the node itself.
func (c *compiler) loopback(p *service.Port, family service.Family, backends []service.Backend) {
	if p.NodePort == 0 || p.Protocol != service.TCP {
		return
	}
	for _, addr := range c.node.LoopbackAddrs {
		f := service.Frontend{Addr: addr, Protocol: p.Protocol, Port: p.NodePort}
		if service.FamilyOf(addr) == family && !c.reserved(f) {
			c.out.Loopbacks = append(c.out.Loopbacks, Loopback{
				Service: c.svc.Name, Frontend: f,
				Backends: backends, Affinity: c.svc.AffinityTimeout,
			})
		}
	}
}

// Loopbacks returns the loopback frontends, and the conflicts of Services that claim the same one: the oldest
// has it. A cluster has at most as many as nodePorts.
func (r *Ruleset) Loopbacks() (map[service.Frontend]Loopback, []Conflict) {
	oldest := func(a, b *Compiled) int { return cmp.Or(a.Created.Compare(b.Created), a.Name.Compare(b.Name)) }
	out := map[service.Frontend]Loopback{}
	var conflicts []Conflict
	for _, c := range slices.SortedFunc(maps.Values(r.loopback), oldest) {
		for _, l := range c.Loopbacks {
			holder, held := out[l.Frontend]
			switch {
			case !r.has(service.FamilyOf(l.Frontend.Addr)):
			case !held:
				out[l.Frontend] = l
			case holder.Service != c.Name:
				conflicts = append(conflicts, Conflict{Frontend: l.Frontend, Winner: holder.Service, Loser: c.Name})
			}
		}
	}
	return out, conflicts
}
