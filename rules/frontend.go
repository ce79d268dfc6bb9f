package rules

import (
	"iter"
	"net/netip"
	"slices"

	"github.com/nftproxy/nftproxy/rules/service"
)

// Kind says by what a Service has a frontend. If several Services claim one, the first kind has it. The API
// server chooses ClusterIPs and checks nodePorts, which no other Service can have; the status of a Service is
// written by a cloud provider; but whoever writes a Service chooses its external IPs.
type Kind uint8

const (
	KindClusterIP Kind = iota
	KindNodePort
	KindLoadBalancerIP
	KindExternalIP
)

// String returns the words for the kind in messages.
func (k Kind) String() string {
	return [...]string{"ClusterIP", "nodePort", "load-balancer IP", "external IP"}[k]
}

// group are the frontends of one kind, port and family, which lead to one target.
type group struct {
	kind  Kind
	ports *portTargets
	to    *target
	addrs []netip.Addr
	port  uint16
	size  int // elements of each frontend
}

// groups yields the frontends that the Service wants, the strongest kinds first.
func (c *compiler) groups() iter.Seq[group] {
	return func(yield func(group) bool) {
		for k := KindClusterIP; k <= KindExternalIP; k++ {
			addrs := c.addrs(k)
			addrs4, addrs6 := ofFamily(service.IPv4, addrs), ofFamily(service.IPv6, addrs)
			for i := range c.ports {
				of := addrs4
				if c.ports[i].family == service.IPv6 {
					of = addrs6
				}
				if g := c.group(k, &c.ports[i], of); len(of) > 0 && g.port != 0 && !yield(g) {
					return
				}
			}
		}
	}
}

// addrs returns the addresses of a kind.
func (c *compiler) addrs(k Kind) []netip.Addr {
	switch k {
	case KindClusterIP:
		return c.svc.ClusterIPs
	case KindNodePort:
		return c.node.NodePortAddrs
	case KindLoadBalancerIP:
		return c.svc.LoadBalancerIPs
	}
	return c.svc.ExternalIPs
}

// group returns the frontends of one kind, port and family. Its port is 0 if there is no nodePort.
func (c *compiler) group(k Kind, p *portTargets, addrs []netip.Addr) group {
	g := group{kind: k, ports: p, to: &p.external, addrs: addrs, port: p.Port.Port}
	switch k {
	case KindClusterIP:
		g.to = &p.internal
	case KindNodePort:
		g.port = p.NodePort
	}
	g.size = g.to.elements(c.svc.AffinityTimeout > 0)
	if k == KindLoadBalancerIP && c.restricted(p.family) {
		g.size += 1 + len(c.sources[p.family])
	}
	return g
}

// ofFamily returns the addresses of a family.
func ofFamily(f service.Family, addrs []netip.Addr) []netip.Addr {
	other := func(a netip.Addr) bool { return service.FamilyOf(a) != f }
	if !slices.ContainsFunc(addrs, other) {
		return addrs
	}
	return slices.DeleteFunc(slices.Clone(addrs), other)
}

// restricted reports whether the load-balancer IPs of the family admit only some sources.
func (c *compiler) restricted(f service.Family) bool {
	return c.svc.Restricted || len(c.sources[f]) > 0
}

// entries adds the frontends, as many as the share of the Service admits.
func (c *compiler) entries(share int) {
	d := &c.out.Demand
	d.Listed = listed(c.svc)
	d.Frontends, d.Elements = c.demand()
	limit := d.limit(share)
	c.fit(limit)
	c.out.Entries = make([]Entry, 0, min(d.Frontends, limit))
	done, used := 0, 0
	for g := range c.groups() {
		for _, addr := range g.addrs {
			f := service.Frontend{Addr: addr, Protocol: g.ports.Protocol, Port: g.port}
			if used += g.size; used > limit {
				c.out.Refused.Limit = d.Frontends - done
				c.problem("%s and %d more frontends are not programmed: all %d would need %d elements, more than "+
					"%d for this Service with its %d ports, addresses and endpoints",
					f, d.Frontends-done-1, d.Frontends, d.Elements, limit, d.Listed)
				return
			}
			done++
			c.entry(g, f)
		}
	}
}

// demand returns how many frontends the Service wants, and their elements.
func (c *compiler) demand() (frontends, elements int) {
	for g := range c.groups() {
		frontends += len(g.addrs)
		elements += len(g.addrs) * g.size
	}
	return frontends, elements
}

// entry adds one frontend, unless it is reserved or the Service has it already: an external IP may be a
// load-balancer IP as well.
func (c *compiler) entry(g group, f service.Frontend) {
	p, t := g.ports.Port, g.to
	if other, ok := c.seen[f]; ok {
		if other != p {
			c.problem("%s: two ports of the Service claim it, the first has it", f)
		}
		return
	}
	c.seen[f] = p
	if c.reserved(f) {
		return
	}
	for _, note := range t.notes {
		c.problem("%s: %s", f, note)
	}
	e := Entry{Frontend: f, Kind: g.kind, Port: PortName(c.svc.Name, p.Name), Shape: t.shape, Serving: t.serving}
	held := c.slots(f)
	t.spread()
	if e.Backends = t.slots; e.Backends == nil {
		e.Backends = AssignSlots(held.Backends, t.backends)
	}
	if e.Locals = t.localSlots; e.Locals == nil {
		e.Locals = AssignSlots(held.Locals, t.locals)
	}
	if c.svc.AffinityTimeout > 0 && len(e.Backends)+len(e.Locals) > 0 {
		e.Shape.Timeout = c.svc.AffinityTimeout
		e.Numbers = assignNumbers(numbered{held.Backends, held.Numbers}, e.Backends)
		e.LocalNumbers = assignNumbers(numbered{held.Locals, held.LocalNumbers}, e.Locals)
	}
	if c.restricted(g.ports.family) && c.loadBalancer(g, f) {
		e.Restricted, e.Sources = true, c.sources[g.ports.family]
	}
	c.out.Entries = append(c.out.Entries, e)
}

// reserved reports whether the node needs the frontend itself. That is a problem of the Service.
func (c *compiler) reserved(f service.Frontend) bool {
	r, ok := c.node.Reserved[f]
	if !ok || r.By == c.svc.Name {
		return false
	}
	c.out.Refused.Reserved++
	c.problem("%s: is not programmed, because the node needs it for %s", f, r.Use)
	return true
}

// loadBalancer reports whether the frontend is a load-balancer IP with its port. It may be a nodePort at the
// same time, which comes first and must admit no more sources.
func (c *compiler) loadBalancer(g group, f service.Frontend) bool {
	return g.kind == KindLoadBalancerIP ||
		g.port == g.ports.Port.Port && slices.Contains(c.svc.LoadBalancerIPs, f.Addr)
}
