// Package state keeps what is known of the cluster and turns it into what the
// rules are compiled from: Kubernetes objects in, rules.Service and rules.Node out.
//
// Objects are validated and reduced to what counts when they arrive. A bad part
// of an object is left out and reported as a problem of the Service concerned;
// nothing else suffers from it.
package state

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/nftproxy/nftproxy/rules/service"
)

// State is what is known of the cluster. It is safe for concurrent use.
type State struct {
	nodeName string

	mu       sync.Mutex
	services map[service.Name]*trackedService
	slices   map[service.Name]map[string]*slice // by the slice's name
	owners   map[sliceName]service.Name         // whose the slice is
	cidrs    map[string][]netip.Prefix          // by the ServiceCIDR's name
	node     Node
	changes  Changes
}

// sliceName identifies an EndpointSlice in the cluster.
type sliceName struct {
	namespace, name string
}

// Changes is what changed since it was last taken.
type Changes struct {
	Services map[service.Name]struct{}
	// Ground says that what all Services stand on changed: the Node or a ServiceCIDR.
	Ground bool
	// Triggers are when what the changed EndpointSlices tell of happened, as far as
	// they say so.
	Triggers []Trigger
}

// Trigger is a change of endpoints of one family.
type Trigger struct {
	Family service.Family
	At     time.Time
}

// New returns a State for the node of the given name.
func New(nodeName string) *State {
	return &State{
		nodeName: nodeName,
		services: map[service.Name]*trackedService{},
		slices:   map[service.Name]map[string]*slice{},
		owners:   map[sliceName]service.Name{},
		cidrs:    map[string][]netip.Prefix{},
		changes:  Changes{Services: map[service.Name]struct{}{}},
	}
}

// Apply takes in an object that is new or changed. Objects of other kinds, and
// other Nodes than ours, are ignored.
func (s *State) Apply(obj runtime.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch obj := obj.(type) {
	case *corev1.Service:
		s.putService(serviceName(obj), newService(obj))
	case *discoveryv1.EndpointSlice:
		s.putSlice(obj.Namespace, obj.Name, newSlice(obj))
		if t, ok := trigger(obj); ok {
			s.changes.Triggers = append(s.changes.Triggers, t)
		}
	case *corev1.Node:
		if obj.Name == s.nodeName {
			s.putNode(newNode(obj))
		}
	case *networkingv1.ServiceCIDR:
		s.putCIDRs(obj.Name, serviceCIDRs(obj))
	}
}

// Delete takes out an object that is gone.
func (s *State) Delete(obj runtime.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch obj := obj.(type) {
	case *corev1.Service:
		s.putService(serviceName(obj), nil)
	case *discoveryv1.EndpointSlice:
		s.putSlice(obj.Namespace, obj.Name, nil)
	case *networkingv1.ServiceCIDR:
		s.putCIDRs(obj.Name, nil)
	}
	// A Node that is gone leaves its addresses: the node is still there to be told so.
}

func (s *State) putService(name service.Name, svc *trackedService) {
	if svc == nil {
		if _, known := s.services[name]; !known {
			return
		}
		delete(s.services, name)
	} else {
		s.services[name] = svc
	}
	s.changes.Services[name] = struct{}{}
}

// putSlice files a slice under its Service; it may have been under another one.
func (s *State) putSlice(namespace, name string, new *slice) {
	id := sliceName{namespace, name}
	if svc, known := s.owners[id]; known && (new == nil || new.service != svc) {
		delete(s.owners, id)
		delete(s.slices[svc], name)
		if len(s.slices[svc]) == 0 {
			delete(s.slices, svc)
		}
		s.changes.Services[svc] = struct{}{}
	}
	if new == nil {
		return
	}
	s.owners[id] = new.service
	if s.slices[new.service] == nil {
		s.slices[new.service] = map[string]*slice{}
	}
	s.slices[new.service][name] = new
	s.changes.Services[new.service] = struct{}{}
}

func (s *State) putNode(node Node) {
	if !node.equal(s.node) {
		s.node = node
		s.changes.Ground = true
	}
}

func (s *State) putCIDRs(name string, cidrs []netip.Prefix) {
	if slices.Equal(s.cidrs[name], cidrs) {
		return
	}
	s.cidrs[name] = cidrs
	if cidrs == nil {
		delete(s.cidrs, name)
	}
	s.changes.Ground = true
}

// Take returns what changed since it was last called.
func (s *State) Take() Changes {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.changes
	s.changes = Changes{Services: map[service.Name]struct{}{}}
	return taken
}

// Services returns the names of all Services that are to be programmed, sorted.
func (s *State) Services() []service.Name {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Keys(s.services), service.Name.Compare)
}

// Service returns a Service with its endpoints, and what was left out of it and
// why. It is nil where there is nothing to program.
func (s *State) Service(name service.Name) (*service.Service, []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	svc, ok := s.services[name]
	if !ok {
		return nil, nil
	}
	problems := slices.Clone(svc.problems)
	sliceNames := slices.Sorted(maps.Keys(s.slices[name]))
	for _, n := range sliceNames {
		problems = append(problems, s.slices[name][n].problems...)
	}
	if svc.broken {
		return nil, problems
	}
	out := svc.rules
	out.Ports = slices.Clone(svc.rules.Ports)
	for i := range out.Ports {
		p, endpoints := &out.Ports[i], 0
		for _, n := range sliceNames {
			endpoints += s.slices[name][n].count(p.Name, p.Protocol)
		}
		p.Endpoints = slices.Grow(p.Endpoints, endpoints)
		for _, n := range sliceNames {
			p.Endpoints = s.slices[name][n].appendEndpoints(p.Endpoints, p.Name, p.Protocol)
		}
	}
	return &out, problems
}

// Node returns what is known of our Node.
func (s *State) Node() Node {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.node
}

// ServiceCIDRs returns the ranges of all ServiceCIDRs, sorted.
func (s *State) ServiceCIDRs() []netip.Prefix {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []netip.Prefix
	for _, name := range slices.Sorted(maps.Keys(s.cidrs)) {
		out = append(out, s.cidrs[name]...)
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}
