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
	cluster = backends(s.all, s.usable, s.topology.picks)
	local = backends(s.all, s.usableHere, s.here)
	return cluster, local, len(cluster) > 0
}

// selection says which endpoints of a port a node uses in one family. The reasons of [Reasons] come from the
// same functions.
type selection struct {
	all              []service.Endpoint // without those whose address a later pod has
	has, here, ready which
	usable           which // by their conditions
	usableHere       which // by their conditions, of those on this node
	topology         topology
}

// selectFrom selects ready endpoints. If there are none, it selects serving and terminating ones, except for
// those whose address a later pod has. Hints count under the conditions of kube-proxy, see topologyOf.
func selectFrom(all []service.Endpoint, family service.Family, node service.Node) selection {
	s := selection{all: current(all)}
	s.has = func(ep *service.Endpoint) bool { return service.FamilyOf(ep.Backend.Addr()) == family }
	s.ready = func(ep *service.Endpoint) bool { return ep.Ready && s.has(ep) }
	s.here = func(ep *service.Endpoint) bool { return ep.Node != "" && ep.Node == node.Name }
	draining := func(ep *service.Endpoint) bool {
		return !ep.Ready && ep.Serving && ep.Terminating && s.has(ep)
	}
	s.usable, s.usableHere = s.ready, s.ready
	if count(s.all, s.ready) > 0 {
		s.topology = topologyOf(s.all, s.ready, node)
	} else {
		s.usable = draining
	}
	if count(s.all, func(ep *service.Endpoint) bool { return s.ready(ep) && s.here(ep) }) == 0 {
		s.usableHere = draining
	}
	return s
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
			if !ep.Ready || ep.Node == "" || ep.Node != node.Name || counted[addr] {
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

// topology is which of the ready endpoints to use by their hints.
type topology struct {
	picks which  // nil: all of them
	by    string // what the hints name: node or zone
}

// topologyOf returns which of the ready endpoints to use by their hints. As in kube-proxy, hints count only if
// every ready endpoint has one and at least one is for this node or zone; hints for nodes come before hints
// for zones (KEP-3015, KEP-2433).
func topologyOf(all []service.Endpoint, ready which, node service.Node) topology {
	forNode := func(ep *service.Endpoint) bool { return slices.Contains(ep.NodeHints, node.Name) }
	forZone := func(ep *service.Endpoint) bool {
		return node.Zone != "" && slices.Contains(ep.ZoneHints, node.Zone)
	}
	allNode, allZone, anyNode, anyZone := true, true, false, false
	for i := range all {
		if ep := &all[i]; ready(ep) {
			allNode, anyNode = allNode && len(ep.NodeHints) > 0, anyNode || forNode(ep)
			allZone, anyZone = allZone && len(ep.ZoneHints) > 0, anyZone || forZone(ep)
		}
	}
	switch {
	case allNode && anyNode:
		return topology{forNode, "node"}
	case allZone && anyZone:
		return topology{forZone, "zone"}
	}
	return topology{}
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
