package memory

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const (
	nodeName  = "node-a"
	namespace = "default"
	endpoints = 3 // of each Service
)

// name returns the name of the i-th Service and of its EndpointSlice.
func name(i int) string { return fmt.Sprintf("service-%05d", i) }

// serviceAddr returns the ClusterIP of the i-th Service.
func serviceAddr(i int) string {
	i += 256
	return netip.AddrFrom4([4]byte{10, byte(96 + i>>16), byte(i >> 8), byte(i)}).String()
}

// endpointAddr returns the address of an endpoint of the i-th Service.
func endpointAddr(i, j int) string {
	return netip.AddrFrom4([4]byte{10, byte(128 + endpoints*(i>>16) + j), byte(i >> 8), byte(i)}).String()
}

// newNode returns the Node of the daemon.
func newNode() *corev1.Node {
	return &corev1.Node{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: nodeName, UID: "node-uid", ResourceVersion: "1"},
		Spec:       corev1.NodeSpec{PodCIDR: "10.244.1.0/24", PodCIDRs: []string{"10.244.1.0/24"}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}}},
	}
}

// metadata returns what an object has in a cluster: the API server sends the managed fields as well.
func metadata(i int, kind string, labels map[string]string) metav1.ObjectMeta {
	fields := fmt.Sprintf(`{"f:metadata":{"f:labels":{".":{},"f:app":{}}},"f:%s":{".":{},"f:name":{}}}`, kind)
	return metav1.ObjectMeta{
		Namespace: namespace, Name: name(i), Labels: labels,
		UID:             types.UID(fmt.Sprintf("6d5f8c7b-%04d-%05d-9d4b-0d1f3c1c8a11", len(kind), i)),
		ResourceVersion: fmt.Sprint(1000 + i), CreationTimestamp: metav1.Unix(1_700_000_000, 0),
		Annotations: map[string]string{"example.com/owner": "team-" + fmt.Sprint(i%50)},
		ManagedFields: []metav1.ManagedFieldsEntry{{
			Manager: "kubectl", Operation: metav1.ManagedFieldsOperationApply, APIVersion: "v1",
			FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(fields)}},
	}
}

// newService returns the i-th Service.
func newService(i int) *corev1.Service {
	name, ip := name(i), serviceAddr(i)
	return &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metadata(i, "spec", map[string]string{"app": name}),
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: ip, ClusterIPs: []string{ip},
			Selector: map[string]string{"app": name},
			Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80,
				TargetPort: intstr.FromInt32(8080)}},
		},
	}
}

// newSlice returns the EndpointSlice of the i-th Service, with three endpoints.
func newSlice(i int) *discoveryv1.EndpointSlice {
	name := name(i)
	tcp, port, yes, no := corev1.ProtocolTCP, int32(8080), true, false
	s := &discoveryv1.EndpointSlice{
		TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta: metadata(i, "endpoints", map[string]string{discoveryv1.LabelServiceName: name, "app": name,
			discoveryv1.LabelManagedBy: "endpointslice-controller.k8s.io"}),
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Protocol: &tcp, Port: &port}},
	}
	for j := range endpoints {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses:  []string{endpointAddr(i, j)},
			Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes, Terminating: &no},
			NodeName:   new(fmt.Sprintf("node-%d", i%500)), Zone: new("zone-a"),
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: namespace,
				Name: fmt.Sprintf("%s-6d5f8c7b9d-%05d", name, j), UID: "1f0b5a52-6a3c-4b4c-9d4b-0d1f3c1c8a11"},
		})
	}
	return s
}
