package status

import (
	"cmp"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// MaxFrontends bounds the frontends of a Service that a Row tells.
const MaxFrontends = 1024

// Port is a port of a Service with what the rules of a node make of it.
type Port struct {
	Service *service.Service // with its endpoints
	Port    *service.Port
	Wanted  []rules.Wanted // of the Service, at most MaxFrontends
	Node    service.Node
}

// Row returns the row of the port, without numbers of connections.
func (p *Port) Row() Row {
	name := p.Service.Name
	r := Row{
		Namespace: name.Namespace, Service: name.Name,
		Name: p.Port.Name, Port: p.Port.Port, Protocol: p.Port.Protocol.String(),
		Target:    fmt.Sprintf("%s:%d/%s", name, p.Port.Port, p.Port.Protocol),
		Frontends: []Frontend{}, Policies: p.policies(), Endpoints: []Endpoint{},
	}
	for w := range p.wanted() {
		f := Frontend{Kind: w.Entry.Kind.String(),
			Address: netip.AddrPortFrom(w.Entry.Frontend.Addr, w.Entry.Frontend.Port).String()}
		if w.Owner != name {
			f.Owner = w.Owner.String()
		}
		r.Frontends = append(r.Frontends, f)
	}
	p.endpoints(&r)
	return r
}

// wanted yields the frontends of the port.
func (p *Port) wanted() iter.Seq[rules.Wanted] {
	return func(yield func(rules.Wanted) bool) {
		for _, w := range p.Wanted {
			number := p.Port.Port
			if w.Entry.Kind == rules.KindNodePort {
				number = p.Port.NodePort
			}
			f := w.Entry.Frontend
			if f.Protocol == p.Port.Protocol && f.Port == number && !yield(w) {
				return
			}
		}
	}
}

// owned yields the frontends that the port has.
func (p *Port) owned() iter.Seq[*rules.Entry] {
	return func(yield func(*rules.Entry) bool) {
		for w := range p.wanted() {
			if w.Owner == p.Service.Name && !yield(w.Entry) {
				return
			}
		}
	}
}

// policies says what of the Service is not the default.
func (p *Port) policies() []string {
	svc, list := p.Service, []string{}
	add := func(on bool, words string) {
		if on {
			list = append(list, words)
		}
	}
	add(svc.InternalLocal, "internal Local")
	add(svc.ExternalLocal, "external Local")
	add(svc.AffinityTimeout > 0, "affinity "+duration(svc.AffinityTimeout))
	add(svc.Restricted || len(svc.SourceRanges) > 0, "source ranges")
	add(svc.HealthCheckPort != 0, fmt.Sprintf("health check :%d", svc.HealthCheckPort))
	return list
}

// duration writes 3h instead of 3h0m0s.
func duration(d time.Duration) string {
	switch {
	case d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return d.String()
}

// endpoints counts the endpoints and lists the first of them.
func (p *Port) endpoints(r *Row) {
	all := p.Port.Endpoints
	order := make([]int, len(all))
	reasons := p.reasons()
	for i := range all {
		order[i] = i
		r.All++
		if all[i].Ready {
			r.Ready++
		}
		if all[i].Ready || all[i].Serving {
			r.Serving++
		}
		if reasons[i] != "" {
			r.LeftOut++
		}
	}
	slices.SortStableFunc(order, func(i, j int) int {
		if a, b := reasons[i] != "", reasons[j] != ""; a != b {
			if a {
				return 1
			}
			return -1
		}
		return cmp.Or(all[i].Backend.Compare(all[j].Backend), cmp.Compare(all[i].Node, all[j].Node))
	})
	for _, i := range order[:min(len(order), MaxEndpoints)] {
		ep := &all[i]
		r.Endpoints = append(r.Endpoints, Endpoint{
			Address: ep.Backend.Addr().String(), Port: ep.Backend.Port(), Node: ep.Node,
			Ready: ep.Ready, Serving: ep.Ready || ep.Serving, LeftOut: reasons[i]})
	}
}

// reasons returns why no frontend leads to each endpoint, and "" for those that one leads to.
func (p *Port) reasons() []string {
	all, local := p.Port.Endpoints, p.Service.InternalLocal
	used, frontends := map[service.Backend]bool{}, 0
	for e := range p.owned() {
		frontends++
		for _, list := range [][]service.Backend{e.Backends, e.Locals} {
			for _, b := range list {
				used[b] = true
			}
		}
	}
	byFamily := map[service.Family][]string{}
	for _, f := range service.Families() {
		byFamily[f] = rules.Reasons(all, f, p.Node, local)
	}
	reasons := make([]string, len(all))
	for i := range all {
		b := all[i].Backend
		reason := byFamily[service.FamilyOf(b.Addr())][i]
		switch {
		case used[b]:
			delete(used, b) // a second one with this address is left out
		case frontends == 0:
			reasons[i] = "the port has no frontend on this node"
		case reason == "":
			reasons[i] = "no frontend of this port leads to endpoints of its family, or it has no more slots"
		default:
			reasons[i] = reason
		}
	}
	return reasons
}

// Counted returns the elements of the kernel that count the connections to the endpoints, each with its
// endpoint; none, if there are more than most.
func (p *Port) Counted(most int) map[nftables.ElementID]service.Backend {
	elements := map[nftables.ElementID]service.Backend{}
	for e := range p.owned() {
		for id, b := range e.Counted() {
			if len(elements) == most {
				return nil
			}
			elements[id] = b
		}
	}
	return elements
}

// SetOpen sets the connections that are open: all, and those to an endpoint. Some may be open to endpoints that
// the row does not have.
func (r *Row) SetOpen(all int, to func(service.Backend) int) {
	r.Open = &all
	for i := range r.Endpoints {
		if addr, err := netip.ParseAddr(r.Endpoints[i].Address); err == nil {
			n := to(netip.AddrPortFrom(addr, r.Endpoints[i].Port))
			r.Endpoints[i].Open = &n
		}
	}
}

// Count sets the connections of the endpoints and their shares.
func (r *Row) Count(counts map[service.Backend]uint64) {
	total := uint64(0)
	for _, n := range counts {
		total += n
	}
	for i := range r.Endpoints {
		e := &r.Endpoints[i]
		addr, err := netip.ParseAddr(e.Address)
		n, counted := counts[netip.AddrPortFrom(addr, e.Port)]
		if err != nil || !counted || e.LeftOut != "" {
			continue
		}
		e.Connections = &n
		if total > 0 {
			share := float64(n) / float64(total)
			e.Share = &share
		}
	}
}
