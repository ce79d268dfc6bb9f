// Package state keeps the current state of the cluster in the form that rules are compiled from: it receives
// Kubernetes objects and returns Services with their endpoints, our Node and the ServiceCIDRs.
//
// It validates an object on arrival and keeps only the fields that the rules need, because there may be
// 150,000 endpoints. An object in the API may be older than the validation of the API server, and a manifest
// is not validated at all. An invalid part of an object is left out and becomes a problem of the Service. The
// other parts, and the other objects, remain.
//
// A source calls Apply and Delete, in any order. Take returns what changed since the last Take: the names of
// Services, and whether the environment of all Services changed. Service then merges a Service with its
// EndpointSlices. The result depends on the last state of each object only, not on the order of the calls,
// with one exception: our Node keeps its last addresses when its object has none any more.
//
// Start reading at State.Apply in state.go; service.go, slice.go and node.go have the fields of each object.
package state

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nftproxy/nftproxy/rules/service"
)

// State is the state of the cluster. It is safe for concurrent use.
type State struct {
	nodeName string
	started  time.Time

	mu       sync.Mutex
	services map[service.Name]*serviceState
	foreign  map[service.Name]string               // Services that we do not program, with the reason
	slices   map[service.Name]map[string]*slice    // by the name of the slice
	owners   map[types.NamespacedName]service.Name // the Service of a slice
	cidrs    map[string][]netip.Prefix             // by the name of the ServiceCIDR
	zones    map[string]string                     // of nodes, as the slices name them
	node     Node
	changes  Changes
}

// Changes contains the changes since the last Take.
type Changes struct {
	Services map[service.Name]struct{}
	// Environment is true if the Node or a ServiceCIDR changed, which all Services depend on.
	Environment bool
	// Triggers are the changes that caused the updates of EndpointSlices, if the slices name them. As in
	// kube-proxy, those from before New do not count: this process could not have programmed them sooner.
	// Each counts once for a slice.
	Triggers []Trigger
}

// Trigger is a change in the cluster that caused an update of an EndpointSlice.
type Trigger struct {
	Family service.Family // of the EndpointSlice
	At     time.Time
}

// New returns an empty State for the node with this name.
func New(nodeName string) *State {
	return &State{
		nodeName: nodeName,
		started:  time.Now(),
		services: map[service.Name]*serviceState{},
		foreign:  map[service.Name]string{},
		slices:   map[service.Name]map[string]*slice{},
		owners:   map[types.NamespacedName]service.Name{},
		cidrs:    map[string][]netip.Prefix{},
		zones:    map[string]string{},
		changes:  Changes{Services: map[service.Name]struct{}{}},
	}
}

// Apply adds or updates an object. It ignores objects of other kinds, and Nodes other than ours.
func (s *State) Apply(obj runtime.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch obj := obj.(type) {
	case *corev1.Service:
		s.putForeign(serviceName(obj), foreign(obj))
		s.putService(serviceName(obj), newService(obj))
	case *discoveryv1.EndpointSlice:
		s.trigger(obj)
		s.noteZones(obj)
		s.putSlice(obj.Namespace, obj.Name, newSlice(obj))
	case *corev1.Node:
		if obj.Name == s.nodeName {
			s.putNode(newNode(obj))
		}
	case *networkingv1.ServiceCIDR:
		s.putCIDRs(obj.Name, serviceCIDRs(obj))
	}
}

// Delete removes an object.
func (s *State) Delete(obj runtime.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch obj := obj.(type) {
	case *corev1.Service:
		s.putForeign(serviceName(obj), "")
		s.putService(serviceName(obj), nil)
	case *discoveryv1.EndpointSlice:
		s.putSlice(obj.Namespace, obj.Name, nil)
	case *networkingv1.ServiceCIDR:
		s.putCIDRs(obj.Name, nil)
	}
	// The addresses of our Node remain: the node is still running.
}

func (s *State) putService(name service.Name, svc *serviceState) {
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

// trigger adds the change that caused the last update of a slice. It is called before putSlice.
func (s *State) trigger(obj *discoveryv1.EndpointSlice) {
	t, ok := trigger(obj)
	// The start by the clock of today: a clock that was wrong at the boot has been set since then.
	started := time.Now().Add(-time.Since(s.started))
	if !ok || !t.At.After(started) {
		return
	}
	id := types.NamespacedName{Namespace: obj.Namespace, Name: obj.Name}
	if before := s.slices[s.owners[id]][obj.Name]; before != nil && before.triggered.Equal(t.At) {
		return
	}
	s.changes.Triggers = append(s.changes.Triggers, t)
}

// putSlice adds a slice to its Service, and removes it from the Service that it belonged to before.
func (s *State) putSlice(namespace, name string, new *slice) {
	id := types.NamespacedName{Namespace: namespace, Name: name}
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
	node.keepAddrs(s.node)
	if !node.equal(s.node) {
		s.changes.Environment = true
	}
	s.node = node
}

func (s *State) putCIDRs(name string, cidrs []netip.Prefix) {
	if slices.Equal(s.cidrs[name], cidrs) {
		return
	}
	s.cidrs[name] = cidrs
	if cidrs == nil {
		delete(s.cidrs, name)
	}
	s.changes.Environment = true
}

// Take returns the changes since the last call.
func (s *State) Take() Changes {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.changes
	s.changes = Changes{Services: map[service.Name]struct{}{}}
	return taken
}

// Services returns the names of all Services to program, sorted.
func (s *State) Services() []service.Name {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Keys(s.services), service.Name.Compare)
}

// maxEndpoints bounds the endpoints of all ports of a Service. Each port has those of a slice again: two
// objects of 1 MB could have 20 million, which take gigabytes of memory. More could not be programmed anyway,
// see rules.MaxElements.
const maxEndpoints = 1 << 19

// Service returns a Service with its endpoints, and the problems of the parts that were left out. It returns
// nil if there is nothing to program.
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
	total := 0
	for i := range out.Ports {
		p, endpoints := &out.Ports[i], 0
		for _, n := range sliceNames {
			endpoints += s.slices[name][n].count(p.Name, p.Protocol)
		}
		if total += endpoints; total > maxEndpoints {
			problems = append(problems, fmt.Sprintf("spec.ports[%d] and %d more are left out: the ports of a "+
				"Service have at most %d endpoints together", i, len(out.Ports)-i-1, maxEndpoints))
			out.Ports = out.Ports[:i]
			break
		}
		p.Endpoints = slices.Grow(p.Endpoints, endpoints)
		for _, n := range sliceNames {
			p.Endpoints = s.slices[name][n].appendEndpoints(p.Endpoints, p.Name, p.Protocol)
		}
		for j := range p.Endpoints {
			svc.weights.weigh(&p.Endpoints[j], s.zones)
		}
	}
	if slices.ContainsFunc(out.Ports, func(p service.Port) bool { return p.Protocol == service.SCTP }) {
		out.Present = s.alive(name, service.SCTP)
	}
	return &out, problems
}

// Alive returns the backends to which flows may continue after their frontend is gone, sorted: for UDP the
// endpoints that serve, at any port in the slices of the Service; for SCTP the addresses of all endpoints in
// any condition, with port 0, which means all ports. The Service itself may be gone.
func (s *State) Alive(name service.Name, protocol service.Protocol) []service.Backend {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.alive(name, protocol)
}

// Draining returns the UDP endpoints of a Service that serve and terminate, at any port.
func (s *State) Draining(name service.Name) []service.Backend {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []service.Backend
	for _, slice := range s.slices[name] {
		for _, e := range slice.endpoints {
			if e.ready || !e.serving || !e.terminating {
				continue
			}
			for _, p := range slice.ports {
				if p.protocol == service.UDP {
					out = append(out, netip.AddrPortFrom(e.addr, p.port))
				}
			}
		}
	}
	return out
}

func (s *State) alive(name service.Name, protocol service.Protocol) []service.Backend {
	var out []service.Backend
	for _, slice := range s.slices[name] {
		out = slice.appendAlive(out, protocol)
	}
	slices.SortFunc(out, service.Backend.Compare)
	return slices.Compact(out)
}

// Node returns our Node, which is empty before the first Apply of it.
func (s *State) Node() Node {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.node
}

// ServiceCIDRs returns the CIDRs of all ServiceCIDRs, sorted.
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
