package rules

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Compiled is the part of the ruleset that one Service wants.
type Compiled struct {
	Name            service.Name
	Created         time.Time
	Entries         []Entry // at most one per frontend
	Loopbacks       []Loopback
	ClusterIPs      []netip.Addr
	Hairpins        []netip.Addr           // backends on this node
	HealthCheckPort uint16                 // 0: none
	LocalReady      map[service.Family]int // see HealthCheck; nil without a port
	NoLocal         map[service.Family]NoLocal
	Problems        []string // each names a part that was left out, and the reason
	Demand          Demand
	Refused         Refused
}

// NoLocal counts ports with a traffic policy Local whose endpoints are all on other nodes.
type NoLocal struct {
	Internal, External int
}

// Slots returns what a frontend has programmed.
type Slots func(service.Frontend) Held

// Held are the backends that a frontend has by slot, those on this node too, and with session affinity their
// numbers.
type Held struct {
	Backends, Locals      []service.Backend
	Numbers, LocalNumbers []nftables.Class
}

// Compile turns a Service into the frontends that it wants on the node, with the endpoints that its policies
// choose. Endpoints stay in the slots that they have. The share bounds the elements of the Service, see
// [MaxShare].
func Compile(svc *service.Service, node service.Node, slots Slots, share int) *Compiled {
	c := &compiler{
		svc: svc, node: node, slots: slots,
		out:  &Compiled{Name: svc.Name, Created: svc.Created, ClusterIPs: svc.ClusterIPs},
		seen: map[service.Frontend]*service.Port{},
	}
	if len(svc.SourceRanges) > 0 {
		c.sources = map[service.Family][]netip.Prefix{}
		for _, family := range families(svc.ClusterIPs) {
			c.sources[family] = sources(svc, node, family)
		}
	}
	c.by = c.scheduler()
	of := families(svc.ClusterIPs)
	c.ports = make([]portTargets, 0, len(svc.Ports)*len(of))
	for i := range svc.Ports {
		p := &svc.Ports[i]
		same := func(q service.Port) bool { return p.Protocol == q.Protocol && p.Port == q.Port }
		if slices.ContainsFunc(svc.Ports[:i], same) {
			c.problem("port %d/%s: the Service has it twice, the first counts", p.Port, p.Protocol)
			continue
		}
		for _, family := range of {
			c.port(p, family)
		}
	}
	c.entries(share)
	if c.out.HealthCheckPort = svc.HealthCheckPort; c.out.HealthCheckPort != 0 {
		c.out.LocalReady = localReady(svc, node)
	}
	slices.SortFunc(c.out.Hairpins, netip.Addr.Compare)
	c.out.Hairpins = slices.Compact(c.out.Hairpins)
	return c.out
}

// families returns the families of a Service: those of its ClusterIPs. Its addresses of another family are
// not programmed.
func families(clusterIPs []netip.Addr) []service.Family {
	return slices.DeleteFunc(service.Families(), func(f service.Family) bool {
		return !slices.ContainsFunc(clusterIPs, func(a netip.Addr) bool { return service.FamilyOf(a) == f })
	})
}

type compiler struct {
	svc     *service.Service
	node    service.Node
	slots   Slots
	out     *Compiled
	ports   []portTargets
	seen    map[service.Frontend]*service.Port
	sources map[service.Family][]netip.Prefix // that a restricted load-balancer IP admits
	by      service.Scheduler
}

// port adds the targets of one port in one family.
func (c *compiler) port(p *service.Port, family service.Family) {
	cluster, local, anywhere := pick(p.Endpoints, family, c.node)
	for _, b := range local {
		c.out.Hairpins = append(c.out.Hairpins, b.Addr())
	}
	if len(local) == 0 && anywhere {
		c.countNoLocal(family)
	}
	internal := clusterShape(ShapeCluster, cluster, anywhere)
	if c.svc.InternalLocal {
		internal = clusterShape(ShapeCluster, local, anywhere)
	}
	external := clusterShape(ShapeExternal, cluster, anywhere)
	if c.svc.ExternalLocal {
		external = localShape(cluster, local, anywhere)
	}
	switch p.Protocol {
	case service.UDP:
		all := serving(p.Endpoints, family)
		internal.serving, external.serving = all, all
	case service.SCTP:
		present := slices.DeleteFunc(slices.Clone(c.svc.Present), func(b service.Backend) bool {
			return service.FamilyOf(b.Addr()) != family
		})
		internal.serving, external.serving = present, present
	}
	if c.svc.ExternalLocal {
		c.loopback(p, family, local)
	} else {
		c.loopback(p, family, cluster)
	}
	internal.trim()
	external.trim()
	if w := weightsOf(p.Endpoints); w != nil || c.by != service.Random {
		c.schedule(&internal, w)
		c.schedule(&external, w)
	}
	c.ports = append(c.ports, portTargets{p, family, internal, external})
}

// sources returns the admitted sources of the family. If they include the node's own address, they include
// the load-balancer IPs as well: if such an IP is bound to an interface of the node, it is the source of the
// node's own traffic to it.
func sources(svc *service.Service, node service.Node, family service.Family) []netip.Prefix {
	out := prefixesOf(family, svc.SourceRanges)
	admits := func(a netip.Addr) bool {
		return slices.ContainsFunc(out, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	if slices.ContainsFunc(node.Addrs, admits) {
		for _, lb := range svc.LoadBalancerIPs {
			if service.FamilyOf(lb) == family {
				out = append(out, netip.PrefixFrom(lb, lb.BitLen()))
			}
		}
	}
	return outermost(out)
}

// maxComment is the size of the longest comment that nft accepts, with its terminating 0.
const maxComment = 128

// PortName returns the name of a port of a Service for people, as in [Entry.Port]. It is cut if it does not fit
// into a comment.
func PortName(of service.Name, port string) string {
	name := of.String()
	if port != "" && len(name)+1+len(port) < maxComment {
		name += ":" + port
	}
	return name[:min(len(name), maxComment-1)]
}

func (c *compiler) countNoLocal(family service.Family) {
	if !c.svc.InternalLocal && !c.svc.ExternalLocal {
		return
	}
	if c.out.NoLocal == nil {
		c.out.NoLocal = map[service.Family]NoLocal{}
	}
	n := c.out.NoLocal[family]
	if c.svc.InternalLocal {
		n.Internal++
	}
	if c.svc.ExternalLocal {
		n.External++
	}
	c.out.NoLocal[family] = n
}

func (c *compiler) problem(format string, args ...any) {
	c.out.Problems = append(c.out.Problems, fmt.Sprintf(format, args...))
}
