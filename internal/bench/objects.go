package main

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/nftproxy/nftproxy/internal/lab"
)

const (
	namespace   = "bench"
	servicePort = 80
	podPort     = 8080
	nodePort    = 30080
	maxServices = 60_000 // fits into the range of ClusterIPs
)

// The address of the pod that answers, the ClusterIPs of its Services, and addresses of the node.
var (
	podAddr   = netip.MustParseAddr("10.244.1.12") // pod-b
	firstAddr = netip.MustParseAddr("10.96.0.10")
	lastAddr  = netip.MustParseAddr("10.96.255.250")
	nodeAddr  = netip.MustParseAddr("192.0.2.1")
	nodeAddr6 = netip.MustParseAddr("2001:db8::1")
)

// serviceAddr returns the ClusterIP of the i-th Service.
func serviceAddr(i int) netip.Addr {
	i += 1024 // other Services use the addresses before
	return netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})
}

// newAddr returns the ClusterIP of the i-th Service that a change creates.
func newAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 96, byte(1 + i>>8), byte(i)}) }

// backendAddr returns the address of the j-th endpoint of the i-th Service after version replacements.
func backendAddr(i, j, version int) netip.Addr {
	if version > 0 {
		j = 10 + version%40 // differs from the last 39 addresses
	}
	return netip.AddrFrom4([4]byte{10, byte(128 + j), byte(i >> 8), byte(i)})
}

func serviceName(i int) string { return fmt.Sprintf("s-%05d", i) }

func newService(name string, ip netip.Addr) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": name}},
		Spec: corev1.ServiceSpec{
			ClusterIP: ip.String(), ClusterIPs: []string{ip.String()}, Selector: map[string]string{"app": name},
			Ports: []corev1.ServicePort{{
				Name: "http", Protocol: corev1.ProtocolTCP,
				Port: servicePort, TargetPort: intstr.FromInt32(podPort),
			}},
		},
	}
}

// temporaryLabel is the label of objects that exist during a part of a round only.
const temporaryLabel = "temporary"

func temporary[T metav1.Object](obj T) T {
	labels := obj.GetLabels()
	labels[temporaryLabel] = ""
	return obj
}

// endpointSlice returns an EndpointSlice with the fields that the EndpointSlice controller sets.
func endpointSlice(svc, name string, addrs ...netip.Addr) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{
			discoveryv1.LabelServiceName: svc, "app": svc,
			discoveryv1.LabelManagedBy: "endpointslice-controller.k8s.io"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{endpointPort("http", corev1.ProtocolTCP)},
	}
	for i, a := range addrs {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{a.String()},
			Conditions: discoveryv1.EndpointConditions{
				Ready: ptr.To(true), Serving: ptr.To(true), Terminating: ptr.To(false)},
			NodeName: ptr.To("node-b"), Zone: ptr.To("zone-b"),
			TargetRef: &corev1.ObjectReference{
				Kind: "Pod", Namespace: namespace, Name: fmt.Sprintf("%s-6d5f8c7b9d-%05d", svc, i),
				UID: "1f0b5a52-6a3c-4b4c-9d4b-0d1f3c1c8a11"},
		})
	}
	return s
}

func endpointPort(name string, protocol corev1.Protocol) discoveryv1.EndpointPort {
	return discoveryv1.EndpointPort{Name: ptr.To(name), Port: ptr.To[int32](podPort), Protocol: ptr.To(protocol)}
}

// threeEndpoints returns the EndpointSlice of the i-th Service after version replacements of its middle
// endpoint.
func threeEndpoints(i, version int) *discoveryv1.EndpointSlice {
	return endpointSlice(serviceName(i), serviceName(i),
		backendAddr(i, 0, 0), backendAddr(i, 1, version), backendAddr(i, 2, 0))
}

// answering returns a Service with one endpoint, the pod that answers on TCP and UDP.
func answering(name string, ip netip.Addr, nodePort int32) (*corev1.Service, *discoveryv1.EndpointSlice) {
	svc := newService(name, ip)
	udp := svc.Spec.Ports[0]
	udp.Name, udp.Protocol = "udp", corev1.ProtocolUDP
	svc.Spec.Ports = append(svc.Spec.Ports, udp)
	if nodePort != 0 {
		svc.Spec.Type = corev1.ServiceTypeNodePort
		svc.Spec.Ports[0].NodePort = nodePort
	}
	slice := endpointSlice(name, name, podAddr)
	slice.Endpoints[0].NodeName = ptr.To(lab.NodeName)
	slice.Ports = append(slice.Ports, endpointPort("udp", corev1.ProtocolUDP))
	return svc, slice
}

// nodeObject returns the Node of the proxies.
func nodeObject() *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: lab.NodeName},
		Spec: corev1.NodeSpec{
			PodCIDR: "10.244.1.0/24", PodCIDRs: []string{"10.244.1.0/24", "fd00:10:244:1::/64"}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: nodeAddr.String()},
			{Type: corev1.NodeInternalIP, Address: nodeAddr6.String()}}},
	}
}
