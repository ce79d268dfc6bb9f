package rules

import (
	"net/netip"
	"slices"

	"github.com/nftproxy/nftproxy/rules/service"
)

// pick returns the backends of a port in one family: those for traffic with policy Cluster and those on this
// node, each sorted and without duplicates. It also returns whether any endpoint anywhere could take traffic.
func pick(all []service.Endpoint, family service.Family, node service.Node) (
	cluster, local []service.Backend, anywhere bool) {
	s := selectFrom(all, family, node)
	cluster = backends(s.all, s.usable, s.hinted)
	local = backends(s.all, s.usableHere, s.here)
	return cluster, local, len(cluster) > 0
}

// selection says which endpoints of a port a node uses in one family. The reasons of [Reasons] come from the
// same methods.
type selection struct {
	all    []service.Endpoint // without those whose address a later pod has
	family service.Family
	node   service.Node

	drain, drainHere bool // none is ready, anywhere or on this node: terminating ones are used
	hints            hints
}

// selectFrom selects ready endpoints. If there are none, it selects serving and terminating ones, except for
// those whose address a later pod has. Hints count under the conditions of kube-proxy, see countHints.
func selectFrom(all []service.Endpoint, family service.Family, node service.Node) selection {
	s := selection{all: current(all), family: family, node: node}
	s.drain = count(s.all, s.ready) == 0
	s.drainHere = count(s.all, func(ep *service.Endpoint) bool { return s.ready(ep) && s.here(ep) }) == 0
	if !s.drain {
		s.countHints()
	}
	return s
}

func (s *selection) has(ep *service.Endpoint) bool {
	return service.FamilyOf(ep.Backend.Addr()) == s.family
}

func (s *selection) ready(ep *service.Endpoint) bool { return ep.Ready && !ep.Drained && s.has(ep) }

func (s *selection) here(ep *service.Endpoint) bool { return ep.Node != "" && ep.Node == s.node.Name }

func (s *selection) draining(ep *service.Endpoint) bool {
	return !ep.Ready && ep.Serving && ep.Terminating && !ep.Drained && s.has(ep)
}

// usable reports whether the conditions of an endpoint allow it to take traffic.
func (s *selection) usable(ep *service.Endpoint) bool {
	if s.drain {
		return s.draining(ep)
	}
	return s.ready(ep)
}

// usableHere is usable if only endpoints on this node are used.
func (s *selection) usableHere(ep *service.Endpoint) bool {
	if s.drainHere {
		return s.draining(ep)
	}
	return s.ready(ep)
}

// serving returns the backends of all endpoints that serve, sorted.
func serving(all []service.Endpoint, family service.Family) []service.Backend {
	return backends(current(all), func(ep *service.Endpoint) bool {
		return service.FamilyOf(ep.Backend.Addr()) == family && (ep.Ready || ep.Serving)
	}, nil)
}

// localReady counts the addresses of ready endpoints on the node, for each family of the Service.
func localReady(svc *service.Service, node service.Node) map[service.Family]int {
	counts := map[service.Family]int{}
	for _, f := range families(svc.ClusterIPs) {
		counts[f] = 0
	}
	counted := map[netip.Addr]bool{}
	for _, p := range svc.Ports {
		for _, ep := range current(p.Endpoints) {
			addr := ep.Backend.Addr()
			if !ep.Ready || ep.Drained || ep.Node == "" || ep.Node != node.Name || counted[addr] {
				continue
			}
			counted[addr] = true
			if n, ok := counts[service.FamilyOf(addr)]; ok {
				counts[service.FamilyOf(addr)] = n + 1
			}
		}
	}
	return counts
}

// current returns the endpoints without terminating ones whose address and port a later pod has, perhaps on
// another node: the network may reuse the address of a pod that terminates. As in kube-proxy, the endpoint
// that does not terminate counts, whether it is ready or not.
func current(all []service.Endpoint) []service.Endpoint {
	reused := map[service.Backend]bool{} // only of those that terminate: there are few
	for i := range all {
		if all[i].Terminating {
			reused[all[i].Backend] = false
		}
	}
	if len(reused) == 0 {
		return all
	}
	found := false
	for i := range all {
		if _, ok := reused[all[i].Backend]; ok && !all[i].Terminating {
			reused[all[i].Backend], found = true, true
		}
	}
	if !found {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(ep service.Endpoint) bool {
		return ep.Terminating && reused[ep.Backend]
	})
}

// which reports whether an endpoint is picked.
type which func(*service.Endpoint) bool

// hints says which hints choose among the ready endpoints.
type hints int

const (
	noHints   hints = iota
	zoneHints       // for zones
	nodeHints       // for nodes
)

// countHints finds out which hints count. As in kube-proxy, hints count only if every ready endpoint has one
// and at least one is for this node or zone; hints for nodes come before hints for zones (KEP-3015, KEP-2433).
func (s *selection) countHints() {
	allNode, allZone, anyNode, anyZone := true, true, false, false
	for i := range s.all {
		if ep := &s.all[i]; s.ready(ep) {
			allNode, anyNode = allNode && len(ep.NodeHints) > 0, anyNode || s.forNode(ep)
			allZone, anyZone = allZone && len(ep.ZoneHints) > 0, anyZone || s.forZone(ep)
		}
	}
	switch {
	case allNode && anyNode:
		s.hints = nodeHints
	case allZone && anyZone:
		s.hints = zoneHints
	}
}

func (s *selection) forNode(ep *service.Endpoint) bool {
	return slices.Contains(ep.NodeHints, s.node.Name)
}

func (s *selection) forZone(ep *service.Endpoint) bool {
	return s.node.Zone != "" && slices.Contains(ep.ZoneHints, s.node.Zone)
}

// hinted reports whether the hints of an endpoint let this node use it.
func (s *selection) hinted(ep *service.Endpoint) bool {
	switch s.hints {
	case nodeHints:
		return s.forNode(ep)
	case zoneHints:
		return s.forZone(ep)
	}
	return true
}

// backends returns the backends of the endpoints that both a and b pick, sorted and without duplicates. A b
// of nil picks all.
func backends(eps []service.Endpoint, a, b which) []service.Backend {
	both := func(ep *service.Endpoint) bool { return a(ep) && (b == nil || b(ep)) }
	n := count(eps, both)
	if n == 0 {
		return nil
	}
	out := make([]service.Backend, 0, n)
	for i := range eps {
		if both(&eps[i]) {
			out = append(out, eps[i].Backend)
		}
	}
	slices.SortFunc(out, service.Backend.Compare)
	return slices.Compact(out)
}

func count(eps []service.Endpoint, picked which) int {
	n := 0
	for i := range eps {
		if picked(&eps[i]) {
			n++
		}
	}
	return n
}
