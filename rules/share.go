package rules

import "github.com/nftproxy/nftproxy/rules/service"

// The elements of a Service are the product of its ports, addresses and endpoints: an object of 30 kB can
// want millions, which no node has memory for. So a Service may have a share of elements for each port,
// address, range and endpoint that its objects list: its cost is in proportion to their size.
//
// Every Service may have [MinShare]: one with a port, a ClusterIP, a nodePort and a load balancer needs less.
// What the Services of a namespace have beyond that is at most [MaxElements] together: their share is
// [MaxShare], or half of it and so on, until this holds. The budget is that of a namespace because its users
// can harm each other anyway, but nobody else.
//
// MaxShare admits 250 endpoints with two ports and the addresses of 250 nodes as external IPs. MaxElements
// elements take about 200 MB of memory in the process; 10,000 endpoints with five ports and ten addresses
// need as many.
const (
	MaxShare    = 256
	MinShare    = 4
	MaxElements = 1 << 19
)

// shares is the number of steps from MaxShare to MinShare.
const shares = 7

// Demand is what a Service wants.
type Demand struct {
	Listed    int // ports, addresses, source ranges and endpoints that its objects list
	Frontends int
	Elements  int
}

// Refused counts frontends that a Service wants and does not have, by the reason.
type Refused struct {
	Limit    int // its share of elements does not admit them
	Reserved int // the node needs them itself
}

// listed returns what counts for the share of a Service. Its ports mostly have the same endpoints, which
// count once.
func listed(svc *service.Service) int {
	endpoints := 0
	for i := range svc.Ports {
		endpoints = max(endpoints, len(svc.Ports[i].Endpoints))
	}
	return len(svc.Ports) + len(svc.ClusterIPs) + len(svc.LoadBalancerIPs) + len(svc.ExternalIPs) +
		len(svc.SourceRanges) + endpoints
}

// limit returns how many elements a Service may have with a share.
func (d *Demand) limit(share int) int { return min(d.Listed*share, MaxElements) }

// demands are the elements that the Services of a namespace have with each share, from MaxShare on, beyond
// those with MinShare.
type demands [shares]int

func (d *demands) count(c *Compiled, by int) {
	granted := min(c.Demand.Elements, c.Demand.limit(MinShare))
	for i := range d {
		d[i] += by * (min(c.Demand.Elements, c.Demand.limit(MaxShare>>i)) - granted)
	}
}

// Share returns the share of the Services in a namespace. It depends only on what they want, not on the share
// with which they were compiled.
func (r *Ruleset) Share(namespace string) int {
	d, i := r.demands[namespace], 0
	for d[i] > MaxElements { // with MinShare there are none
		i++
	}
	return MaxShare >> i
}

// Refused counts the frontends of all Services that they want and do not have.
func (r *Ruleset) Refused() Refused { return r.refused }

// demand adds what a Service wants and is refused.
func (r *Ruleset) demand(c *Compiled, by int) {
	d := r.demands[c.Name.Namespace]
	d.count(c, by)
	if r.demands[c.Name.Namespace] = d; d == (demands{}) {
		delete(r.demands, c.Name.Namespace)
	}
	r.refused.Limit += by * c.Refused.Limit
	r.refused.Reserved += by * c.Refused.Reserved
}
