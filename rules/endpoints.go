package rules

import (
	"net/netip"
	"slices"
)

// pick returns the backends of a ServicePort in one family: those that traffic
// with policy Cluster goes to and those on this node, each sorted and without
// duplicates, and whether any endpoint anywhere could take traffic.
//
// Ready endpoints are taken; where there is none, serving and terminating ones.
// Hints are heeded under kube-proxy's conditions, see topologyOf.
func pick(all []Endpoint, family Family, node Node) (cluster, local []Backend, anywhere bool) {
	var ready, draining []Endpoint
	for _, ep := range all {
		switch {
		case FamilyOf(ep.Backend.Addr()) != family:
		case ep.Ready:
			ready = append(ready, ep)
		case ep.Serving && ep.Terminating:
			draining = append(draining, ep)
		}
	}
	use := topologyOf(ready, node)
	cluster = backends(ready, use)
	if len(ready) == 0 {
		cluster = backends(draining, nil)
	}
	here := func(ep Endpoint) bool { return ep.Node != "" && ep.Node == node.Name }
	local = backends(ready, here)
	if len(local) == 0 {
		local = backends(draining, here)
	}
	return cluster, local, len(ready)+len(draining) > 0
}

// serving returns the backends of all endpoints that serve, sorted.
func serving(all []Endpoint, family Family) []Backend {
	return backends(all, func(ep Endpoint) bool {
		return FamilyOf(ep.Backend.Addr()) == family && (ep.Ready || ep.Serving)
	})
}

// localReady counts the addresses of ready endpoints on the node: what a load
// balancer's health check asks for.
func localReady(svc *Service, node Node) int {
	addrs := map[netip.Addr]struct{}{}
	for _, p := range svc.Ports {
		for _, ep := range p.Endpoints {
			if ep.Ready && ep.Node != "" && ep.Node == node.Name {
				addrs[ep.Backend.Addr()] = struct{}{}
			}
		}
	}
	return len(addrs)
}

// topologyOf returns which of the ready endpoints to use by their hints, or nil
// for all of them. As in kube-proxy, hints count only when every ready endpoint
// has one and at least one is for this node or zone; hints for nodes are
// preferred to hints for zones (KEP-3015, KEP-2433).
func topologyOf(ready []Endpoint, node Node) func(Endpoint) bool {
	forNode := func(ep Endpoint) bool { return slices.Contains(ep.NodeHints, node.Name) }
	forZone := func(ep Endpoint) bool { return node.Zone != "" && slices.Contains(ep.ZoneHints, node.Zone) }
	allNode, allZone := true, true
	for _, ep := range ready {
		allNode = allNode && len(ep.NodeHints) > 0
		allZone = allZone && len(ep.ZoneHints) > 0
	}
	switch {
	case allNode && slices.ContainsFunc(ready, forNode):
		return forNode
	case allZone && slices.ContainsFunc(ready, forZone):
		return forZone
	}
	return nil
}

// backends returns the backends of the endpoints that use admits (nil: all),
// sorted and without duplicates.
func backends(eps []Endpoint, use func(Endpoint) bool) []Backend {
	out := make([]Backend, 0, len(eps))
	for _, ep := range eps {
		if use == nil || use(ep) {
			out = append(out, ep.Backend)
		}
	}
	slices.SortFunc(out, Backend.Compare)
	return slices.Compact(out)
}
