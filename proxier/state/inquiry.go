package state

import (
	"maps"
	"net/netip"
	"slices"
	"unique"

	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/nftproxy/nftproxy/rules/service"
)

// SlicePort is a port in the EndpointSlices of a Service.
type SlicePort struct {
	Name      string
	Protocol  service.Protocol
	Port      uint16
	Endpoints int // addresses in slices with this port, in any condition
}

// putForeign records why we do not program a Service; "" means that we do.
func (s *State) putForeign(name service.Name, why string) {
	if why == "" {
		delete(s.foreign, name)
		return
	}
	s.foreign[name] = why
}

// Foreign returns why we do not program a Service that is in the cluster, and "" for others.
func (s *State) Foreign(name service.Name) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.foreign[name]
}

// SlicePorts returns the ports in the EndpointSlices of a Service, each once, in order. It returns how many
// slices there are: a slice may have no ports.
func (s *State) SlicePorts(name service.Name) (ports []SlicePort, slicesOf int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range slices.Sorted(maps.Keys(s.slices[name])) {
		slice := s.slices[name][n]
		for _, p := range slice.ports {
			same := func(q SlicePort) bool {
				return q.Name == p.name && q.Protocol == p.protocol && q.Port == p.port
			}
			if i := slices.IndexFunc(ports, same); i >= 0 {
				ports[i].Endpoints += len(slice.endpoints)
				continue
			}
			ports = append(ports, SlicePort{p.name, p.protocol, p.port, len(slice.endpoints)})
		}
	}
	return ports, len(s.slices[name])
}

// noteZones records the zones of the nodes in a slice. A zone is kept for each node, because there are many
// more endpoints.
func (s *State) noteZones(obj *discoveryv1.EndpointSlice) {
	for i := range obj.Endpoints {
		e := &obj.Endpoints[i]
		if e.NodeName != nil && e.Zone != nil && s.zones[*e.NodeName] != *e.Zone {
			s.zones[unique.Make(*e.NodeName).Value()] = unique.Make(*e.Zone).Value()
		}
	}
}

// Zone returns the zone of a node on which an endpoint is or was, and "" if it is not known.
func (s *State) Zone(node string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.zones[node]
}

// Claiming returns the Services that have the address, in whatever field, or the nodePort, sorted. It looks
// at all Services.
func (s *State) Claiming(addr netip.Addr, nodePort uint16) (names []service.Name) {
	s.mu.Lock()
	defer s.mu.Unlock()
	has := func(p service.Port) bool { return p.NodePort == nodePort && nodePort != 0 }
	for name, svc := range s.services {
		r := &svc.rules
		if slices.Contains(r.ClusterIPs, addr) || slices.Contains(r.LoadBalancerIPs, addr) ||
			slices.Contains(r.ExternalIPs, addr) || slices.ContainsFunc(r.Ports, has) {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, service.Name.Compare)
	return names
}

// All returns all Services to program without their endpoints, in no order, in a list that replaces into if that
// is too short. They must not be changed.
func (s *State) All(into []*service.Service) []*service.Service {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Grow(into[:0], len(s.services))
	for _, svc := range s.services {
		if !svc.broken {
			all = append(all, &svc.rules)
		}
	}
	return all
}
