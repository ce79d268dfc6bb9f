package state

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Each port has the endpoints of a slice again. Two objects of some 50 kB do not make 600,000 endpoints.
func TestEndpointsOfManyPorts(t *testing.T) {
	meta := metav1.ObjectMeta{Namespace: "default", Name: "web",
		Labels: map[string]string{discoveryv1.LabelServiceName: "web"}}
	svc := &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.10"}}
	slice := &discoveryv1.EndpointSlice{ObjectMeta: meta, AddressType: discoveryv1.AddressTypeIPv4}
	for i := range 1000 {
		slice.Endpoints = append(slice.Endpoints,
			discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.244.%d.%d", i/250, i%250+1)}})
	}
	for i := range 600 {
		name, port := fmt.Sprintf("p%d", i), int32(i+1)
		svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Name: name, Port: port})
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: &name, Port: &port})
	}
	s := New("node-a")
	s.Apply(svc)
	s.Apply(slice)
	got, problems := s.Service(serviceName(svc))
	const want = maxEndpoints / 1000
	if len(got.Ports) != want {
		t.Errorf("%d ports, want the first %d", len(got.Ports), want)
	}
	for _, p := range got.Ports {
		if len(p.Endpoints) != 1000 {
			t.Fatalf("port %s has %d endpoints", p.Name, len(p.Endpoints))
		}
	}
	text := fmt.Sprintf("spec.ports[%d] and %d more are left out", want, 600-want-1)
	if len(problems) != 1 || !strings.Contains(problems[0], text) {
		t.Errorf("problems %q, want one that says %q", problems, text)
	}
}
