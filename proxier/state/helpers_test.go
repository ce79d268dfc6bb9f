package state

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nftproxy/nftproxy/rules/service"
)

// webName is the name of the Service in these tests.
func webName() service.Name { return service.Name{Namespace: "default", Name: "web"} }

// web returns a Service with one port.
func web() *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: "web", CreationTimestamp: metav1.NewTime(time.Unix(1000, 0)),
		},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.96.0.10", ClusterIPs: []string{"10.96.0.10"},
			Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}},
		},
	}
}

// webRules is the result for web.
func webRules() *service.Service {
	return &service.Service{
		Name: webName(), Created: time.Unix(1000, 0), ClusterIPs: addrs("10.96.0.10"),
		Ports: []service.Port{{Name: "http", Protocol: service.TCP, Port: 80}},
	}
}

// webSlice returns a slice of web with one endpoint for each address.
func webSlice(name string, addrs ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: "web"},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{
			{Name: new("http"), Protocol: new(corev1.ProtocolTCP), Port: new(int32(8080))},
		},
	}
	for _, a := range addrs {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}})
	}
	return s
}

// ready returns an endpoint that is ready.
func ready(backend string) service.Endpoint {
	return service.Endpoint{Backend: netip.MustParseAddrPort(backend), Ready: true, Serving: true}
}

func netipComparers() cmp.Options {
	return cmp.Options{
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
		cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	}
}

// check compares the Service web of s with want.
func check(t *testing.T, s *State, want *service.Service, problems ...string) {
	t.Helper()
	got, gotProblems := s.Service(webName())
	if diff := cmp.Diff(want, got, netipComparers()); diff != "" {
		t.Errorf("service (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(problems, gotProblems); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

// taken takes the changes: the names of the Services, and whether the environment changed.
func taken(s *State) string {
	c := s.Take()
	var out []string
	for name := range c.Services {
		out = append(out, name.String())
	}
	slices.Sort(out)
	return fmt.Sprint(out, c.Environment)
}
