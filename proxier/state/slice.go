package state

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
	"unique"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/ptr"

	"github.com/nftproxy/nftproxy/rules/service"
)

// slice contains the fields of an EndpointSlice that the rules depend on.
type slice struct {
	service   service.Name
	ports     []slicePort
	endpoints []endpoint
	problems  []string
	triggered time.Time // the trigger of the last update
}

type slicePort struct {
	name     string
	protocol service.Protocol
	port     uint16
}

// endpoint is small, because there may be 150,000.
type endpoint struct {
	addr                        netip.Addr
	node                        unique.Handle[string]
	hints                       *hints // nil without hints
	ready, serving, terminating bool
}

// hints are the zones and nodes that should use an endpoint.
type hints struct{ zones, nodes []string }

// newSlice returns nil for a slice that belongs to no Service that we program: a slice of a headless Service,
// of host names, or without the label of a Service.
func newSlice(obj *discoveryv1.EndpointSlice) *slice {
	name := obj.Labels[discoveryv1.LabelServiceName]
	_, headless := obj.Labels[corev1.IsHeadlessService]
	if name == "" || headless || obj.AddressType == discoveryv1.AddressTypeFQDN {
		return nil
	}
	s := &slice{service: service.Name{Namespace: obj.Namespace, Name: name}}
	if t, ok := trigger(obj); ok {
		s.triggered = t.At
	}
	var family service.Family
	switch obj.AddressType {
	case discoveryv1.AddressTypeIPv4:
		family = service.IPv4
	case discoveryv1.AddressTypeIPv6:
		family = service.IPv6
	default:
		s.problem(obj, "addressType: %q is not IPv4, IPv6 or FQDN", obj.AddressType)
		return s
	}
	for i := range obj.Ports {
		s.port(obj, i)
	}
	s.endpoints = slices.Grow(s.endpoints, len(obj.Endpoints))
	for i := range obj.Endpoints {
		s.endpoint(obj, i, family)
	}
	return s
}

func (s *slice) problem(obj *discoveryv1.EndpointSlice, format string, args ...any) {
	s.problems = append(s.problems, fmt.Sprintf("EndpointSlice %s: ", obj.Name)+fmt.Sprintf(format, args...))
}

// port adds a port. It ignores a port without a number, which means all ports: a Service cannot use it.
func (s *slice) port(obj *discoveryv1.EndpointSlice, i int) {
	p := &obj.Ports[i]
	if p.Port == nil {
		return
	}
	out := slicePort{protocol: service.TCP, port: uint16(*p.Port)}
	if !validPort(*p.Port) {
		s.problem(obj, "ports[%d].port: %d is not within 1 to 65535", i, *p.Port)
		return
	}
	if p.Name != nil {
		out.name = *p.Name
	}
	if p.Protocol != nil {
		var err error
		if out.protocol, err = parseProtocol(*p.Protocol); err != nil {
			s.problem(obj, "ports[%d].protocol: %v", i, err)
			return
		}
	}
	s.ports = append(s.ports, out)
}

// endpoint adds an endpoint. The API defines that the first address is used, and that without a condition an
// endpoint is ready, serving and not terminating.
func (s *slice) endpoint(obj *discoveryv1.EndpointSlice, i int, family service.Family) {
	e := &obj.Endpoints[i]
	if len(e.Addresses) == 0 {
		s.problem(obj, "endpoints[%d].addresses: is empty", i)
		return
	}
	addr, err := parseDestination(e.Addresses[0])
	if err == nil && service.FamilyOf(addr) != family {
		err = fmt.Errorf("%s is not of addressType %s", addr, obj.AddressType)
	}
	if err != nil {
		s.problem(obj, "endpoints[%d].addresses[0]: %v", i, err)
		return
	}
	out := endpoint{
		addr:        addr,
		ready:       ptr.Deref(e.Conditions.Ready, true),
		serving:     ptr.Deref(e.Conditions.Serving, true),
		terminating: ptr.Deref(e.Conditions.Terminating, false),
	}
	if e.NodeName != nil {
		out.node = unique.Make(*e.NodeName)
	}
	if e.Hints != nil {
		out.hints = &hints{}
		for _, h := range e.Hints.ForZones {
			out.hints.zones = append(out.hints.zones, unique.Make(h.Name).Value())
		}
		for _, h := range e.Hints.ForNodes {
			out.hints.nodes = append(out.hints.nodes, unique.Make(h.Name).Value())
		}
	}
	s.endpoints = append(s.endpoints, out)
}

// trigger returns the change that caused the last update of a slice, if the slice names it.
func trigger(obj *discoveryv1.EndpointSlice) (Trigger, bool) {
	at, err := time.Parse(time.RFC3339Nano, obj.Annotations[corev1.EndpointsLastChangeTriggerTime])
	family := service.IPv4
	if obj.AddressType == discoveryv1.AddressTypeIPv6 {
		family = service.IPv6
	}
	return Trigger{family, at}, err == nil
}

// count returns the number of endpoints for a port.
func (s *slice) count(name string, protocol service.Protocol) int {
	n := 0
	for _, p := range s.ports {
		if p.name == name && p.protocol == protocol {
			n += len(s.endpoints)
		}
	}
	return n
}

// appendEndpoints appends the endpoints for a port.
func (s *slice) appendEndpoints(
	out []service.Endpoint, name string, protocol service.Protocol,
) []service.Endpoint {
	for _, p := range s.ports {
		if p.name != name || p.protocol != protocol {
			continue
		}
		for _, e := range s.endpoints {
			ep := service.Endpoint{
				Backend: netip.AddrPortFrom(e.addr, p.port),
				Ready:   e.ready, Serving: e.serving, Terminating: e.terminating,
			}
			if e.node != (unique.Handle[string]{}) {
				ep.Node = e.node.Value()
			}
			if e.hints != nil {
				ep.ZoneHints, ep.NodeHints = e.hints.zones, e.hints.nodes
			}
			out = append(out, ep)
		}
	}
	return out
}

// appendAlive appends the endpoints to which flows may continue; see State.Alive.
func (s *slice) appendAlive(out []service.Backend, protocol service.Protocol) []service.Backend {
	if protocol == service.SCTP {
		for _, e := range s.endpoints {
			out = append(out, netip.AddrPortFrom(e.addr, 0))
		}
		return out
	}
	for _, p := range s.ports {
		if p.protocol != protocol {
			continue
		}
		for _, e := range s.endpoints {
			if e.ready || e.serving {
				out = append(out, netip.AddrPortFrom(e.addr, p.port))
			}
		}
	}
	return out
}
