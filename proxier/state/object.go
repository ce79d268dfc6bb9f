package state

import (
	"fmt"
	"maps"
	"slices"
	"time"
	"unique"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"github.com/nftproxy/nftproxy/rules/service"
)

// Objects calls each with objects that give the same rules as the state: our Node, the ServiceCIDRs, and each
// Service with its EndpointSlices. They have what a State keeps: fields that the rules do not depend on, and
// parts that are invalid, are missing. It stops at an error of each and returns it. A State that changes
// meanwhile gives each Service as it is at one moment.
func (s *State) Objects(each func(runtime.Object) error) error {
	for _, obj := range s.environmentObjects() {
		if err := each(obj); err != nil {
			return err
		}
	}
	for _, name := range s.allNames() {
		for _, obj := range s.serviceObjects(name) {
			if err := each(obj); err != nil {
				return err
			}
		}
	}
	return nil
}

// allNames returns the names of Services that have an object or slices, sorted.
func (s *State) allNames() []service.Name {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := slices.Collect(maps.Keys(s.services))
	for name := range s.slices {
		if _, known := s.services[name]; !known {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, service.Name.Compare)
	return names
}

func (s *State) environmentObjects() []runtime.Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	node := &corev1.Node{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: s.nodeName},
		Spec:       corev1.NodeSpec{PodCIDRs: texts(s.node.PodCIDRs)},
	}
	if s.node.Zone != "" {
		node.Labels = map[string]string{corev1.LabelTopologyZone: s.node.Zone}
	}
	for _, a := range s.node.Addrs {
		node.Status.Addresses = append(node.Status.Addresses,
			corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
	}
	objects := []runtime.Object{node}
	for _, name := range slices.Sorted(maps.Keys(s.cidrs)) {
		objects = append(objects, &networkingv1.ServiceCIDR{
			TypeMeta:   metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "ServiceCIDR"},
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       networkingv1.ServiceCIDRSpec{CIDRs: texts(s.cidrs[name])},
		})
	}
	return objects
}

// serviceObjects returns a Service, if it is not invalid as a whole, and its EndpointSlices.
func (s *State) serviceObjects(name service.Name) (objects []runtime.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if svc, known := s.services[name]; known && !svc.broken {
		objects = append(objects, svc.object())
	}
	for _, n := range slices.Sorted(maps.Keys(s.slices[name])) {
		objects = append(objects, s.slices[name][n].object(n, s.zones))
	}
	return objects
}

func (s *serviceState) object() *corev1.Service {
	r := &s.rules
	svc := &corev1.Service{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Namespace: r.Name.Namespace, Name: r.Name.Name,
			CreationTimestamp: metav1.NewTime(r.Created), Annotations: s.annotated},
		Spec: corev1.ServiceSpec{
			Type:                     corev1.ServiceTypeClusterIP,
			ClusterIPs:               texts(r.ClusterIPs),
			ExternalIPs:              texts(r.ExternalIPs),
			LoadBalancerSourceRanges: texts(r.SourceRanges),
			HealthCheckNodePort:      int32(r.HealthCheckPort),
		},
	}
	if len(r.ClusterIPs) > 0 {
		svc.Spec.ClusterIP = svc.Spec.ClusterIPs[0]
	}
	if r.Restricted {
		svc.Spec.LoadBalancerSourceRanges = append(svc.Spec.LoadBalancerSourceRanges, "invalid")
	}
	if r.InternalLocal {
		svc.Spec.InternalTrafficPolicy = ptr.To(corev1.ServiceInternalTrafficPolicyLocal)
	}
	if r.ExternalLocal {
		svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	}
	if r.AffinityTimeout != 0 {
		svc.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		svc.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{
			TimeoutSeconds: ptr.To(int32(r.AffinityTimeout / time.Second))}}
	}
	for _, p := range r.Ports {
		svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Name: p.Name, Port: int32(p.Port),
			Protocol: protocolOf(p.Protocol), NodePort: int32(p.NodePort)})
		if p.NodePort != 0 {
			svc.Spec.Type = corev1.ServiceTypeNodePort
		}
	}
	for _, a := range r.LoadBalancerIPs {
		svc.Spec.Type = corev1.ServiceTypeLoadBalancer
		svc.Status.LoadBalancer.Ingress = append(svc.Status.LoadBalancer.Ingress,
			corev1.LoadBalancerIngress{IP: a.String()})
	}
	return svc
}

func (s *slice) object(name string, zones map[string]string) *discoveryv1.EndpointSlice {
	obj := &discoveryv1.EndpointSlice{
		TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{Namespace: s.service.Namespace, Name: name,
			Labels: map[string]string{discoveryv1.LabelServiceName: s.service.Name}},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	for _, p := range s.ports {
		obj.Ports = append(obj.Ports, discoveryv1.EndpointPort{Name: ptr.To(p.name),
			Protocol: ptr.To(protocolOf(p.protocol)), Port: ptr.To(int32(p.port))})
	}
	for _, e := range s.endpoints {
		if service.FamilyOf(e.addr) == service.IPv6 {
			obj.AddressType = discoveryv1.AddressTypeIPv6
		}
		obj.Endpoints = append(obj.Endpoints, e.object(zones))
	}
	return obj
}

func (e *endpoint) object(zones map[string]string) discoveryv1.Endpoint {
	out := discoveryv1.Endpoint{
		Addresses: []string{e.addr.String()},
		Conditions: discoveryv1.EndpointConditions{
			Ready: ptr.To(e.ready), Serving: ptr.To(e.serving), Terminating: ptr.To(e.terminating)},
	}
	if e.node != (unique.Handle[string]{}) {
		out.NodeName = ptr.To(e.node.Value())
		if zone := zones[e.node.Value()]; zone != "" {
			out.Zone = ptr.To(zone)
		}
	}
	if e.hints != nil {
		out.Hints = &discoveryv1.EndpointHints{}
		for _, zone := range e.hints.zones {
			out.Hints.ForZones = append(out.Hints.ForZones, discoveryv1.ForZone{Name: zone})
		}
		for _, node := range e.hints.nodes {
			out.Hints.ForNodes = append(out.Hints.ForNodes, discoveryv1.ForNode{Name: node})
		}
	}
	return out
}

// protocolOf returns the name of a protocol in the API: TCP.
func protocolOf(p service.Protocol) corev1.Protocol {
	switch p {
	case service.UDP:
		return corev1.ProtocolUDP
	case service.SCTP:
		return corev1.ProtocolSCTP
	}
	return corev1.ProtocolTCP
}

// texts returns addresses or prefixes as the API has them.
func texts[T fmt.Stringer](values []T) (out []string) {
	for _, v := range values {
		out = append(out, v.String())
	}
	return out
}
