package lab

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/ptr"
)

func TestServeEndpoints(t *testing.T) {
	l := newLab(t, Options{})
	slices := []*discoveryv1.EndpointSlice{
		{
			AddressType: discoveryv1.AddressTypeIPv4,
			Ports: []discoveryv1.EndpointPort{
				{Port: ptr.To[int32](8080)},
				{Port: ptr.To[int32](53), Protocol: ptr.To(corev1.ProtocolUDP)},
				{Port: ptr.To[int32](132), Protocol: ptr.To(corev1.ProtocolSCTP)},
				{}, // all ports
			},
			Endpoints: []discoveryv1.Endpoint{
				{Addresses: []string{"10.244.1.11"},
					Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(false)}},
				{Addresses: []string{"10.244.2.11"}},
				{Addresses: []string{"10.244.9.9"}}, // not an address of the lab
			},
		},
		{
			AddressType: discoveryv1.AddressTypeIPv6,
			Ports: []discoveryv1.EndpointPort{
				{Port: ptr.To[int32](8080), Protocol: ptr.To(corev1.ProtocolTCP)},
			},
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"2001:db8::1"}}},
		},
		{
			AddressType: discoveryv1.AddressTypeFQDN,
			Ports:       []discoveryv1.EndpointPort{{Port: ptr.To[int32](8080)}},
			Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"example.com"}}},
		},
	}
	for range 2 { // the second call changes nothing
		if err := l.ServeEndpoints(slices); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ proto, to, by string }{
		{"tcp", "10.244.1.11:8080", "pod-a"},
		{"udp", "10.244.1.11:53", "pod-a"},
		{"sctp", "10.244.1.11:132", "pod-a"},
		{"tcp", "10.244.2.11:8080", "pod-c"},
		{"udp", "10.244.2.11:53", "pod-c"},
		{"sctp", "10.244.2.11:132", "pod-c"},
		{"tcp", "[2001:db8::1]:8080", "host-pod"},
	} {
		got := l.Request("pod-b", tt.proto, netip.MustParseAddrPort(tt.to))
		if got.Outcome != Answered || got.By != tt.by {
			t.Errorf("%s %s: %s by %q (%v), want %s", tt.proto, tt.to, got.Outcome, got.By, got.Err, tt.by)
		}
	}
}

func TestServeRejects(t *testing.T) {
	l := newLab(t, Options{})
	for _, tt := range []struct{ addr, proto string }{
		{"10.244.9.9:80", "tcp"},
		{"10.96.0.10:80", "tcp"},
		{"10.244.1.11:80", "icmp"},
	} {
		if err := l.Serve(netip.MustParseAddrPort(tt.addr), tt.proto); err == nil {
			t.Errorf("serves %s %s", tt.proto, tt.addr)
		}
	}
}
