package state

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/nftproxy/nftproxy/rules/service"
)

// sliceCase is a change of a slice of web with the endpoint 10.244.1.1, with the resulting endpoints and
// problems.
type sliceCase struct {
	name     string
	change   func(*discoveryv1.EndpointSlice)
	want     []service.Endpoint
	problems []string
}

func TestSlice(t *testing.T) {
	for _, tt := range slices.Concat(slicePortCases(), endpointCases(), metadataCases(), conditionCases()) {
		t.Run(tt.name, func(t *testing.T) {
			slice, want := webSlice("web-1", "10.244.1.1"), webRules()
			tt.change(slice)
			want.Ports[0].Endpoints = tt.want
			s := New("n1")
			s.Apply(web())
			s.Apply(slice)
			check(t, s, want, tt.problems...)
		})
	}
}

func slicePortCases() []sliceCase {
	first := []service.Endpoint{ready("10.244.1.1:8080")}
	ports := func(ports ...discoveryv1.EndpointPort) func(*discoveryv1.EndpointSlice) {
		return func(s *discoveryv1.EndpointSlice) { s.Ports = append(s.Ports, ports...) }
	}
	http := new("http")
	return []sliceCase{
		{"unchanged", func(*discoveryv1.EndpointSlice) {}, first, nil},
		{"no ports", func(s *discoveryv1.EndpointSlice) { s.Ports = nil }, nil, nil},
		{"all ports", func(s *discoveryv1.EndpointSlice) { s.Ports[0].Port = nil }, nil, nil},
		{"no protocol is TCP", func(s *discoveryv1.EndpointSlice) { s.Ports[0].Protocol = nil }, first, nil},
		{"no name is the empty one", func(s *discoveryv1.EndpointSlice) { s.Ports[0].Name = nil }, nil, nil},
		{"another name", func(s *discoveryv1.EndpointSlice) { s.Ports[0].Name = new("metrics") }, nil, nil},
		{"another protocol",
			func(s *discoveryv1.EndpointSlice) { s.Ports[0].Protocol = new(corev1.ProtocolUDP) }, nil, nil},
		{"two ports of the name", ports(discoveryv1.EndpointPort{Name: http, Port: new(int32(9090))}),
			append(first[:1:1], ready("10.244.1.1:9090")), nil},
		{"bad numbers",
			ports(discoveryv1.EndpointPort{Name: http, Port: new(int32(0))},
				discoveryv1.EndpointPort{Name: http, Port: new(int32(70000))},
				discoveryv1.EndpointPort{Name: http, Port: new(int32(-1))}), first, []string{
				"EndpointSlice web-1: ports[1].port: 0 is not within 1 to 65535",
				"EndpointSlice web-1: ports[2].port: 70000 is not within 1 to 65535",
				"EndpointSlice web-1: ports[3].port: -1 is not within 1 to 65535"}},
		{"bad protocol",
			ports(discoveryv1.EndpointPort{Name: http, Port: new(int32(1)),
				Protocol: new(corev1.Protocol("ICMP"))}), first,
			[]string{`EndpointSlice web-1: ports[1].protocol: "ICMP" is not TCP, UDP or SCTP`}},
	}
}

func endpointCases() []sliceCase {
	first := []service.Endpoint{ready("10.244.1.1:8080")}
	endpoints := func(addrs ...[]string) func(*discoveryv1.EndpointSlice) {
		return func(s *discoveryv1.EndpointSlice) {
			for _, a := range addrs {
				s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: a})
			}
		}
	}
	const at = "EndpointSlice web-1: endpoints"
	return []sliceCase{
		{"no endpoints", func(s *discoveryv1.EndpointSlice) { s.Endpoints = nil }, nil, nil},
		{"two endpoints",
			endpoints([]string{"10.244.1.2"}), append(first[:1:1], ready("10.244.1.2:8080")), nil},
		{"of several addresses the first counts", endpoints([]string{"10.244.1.2", "10.244.1.3"}),
			append(first[:1:1], ready("10.244.1.2:8080")), nil},
		{"leading zeros",
			func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Addresses[0] = "010.244.001.001" },
			first, nil},
		{"bad addresses",
			endpoints(nil, []string{}, []string{""}, []string{"x"}, []string{"127.0.0.1"},
				[]string{"fd00::1"}, []string{"224.0.0.1"}), first, []string{
				at + "[1].addresses: is empty",
				at + "[2].addresses: is empty",
				at + `[3].addresses[0]: "" is not an IP address`,
				at + `[4].addresses[0]: "x" is not an IP address`,
				at + "[5].addresses[0]: 127.0.0.1 is unspecified, loopback or multicast",
				at + "[6].addresses[0]: fd00::1 is not of addressType IPv4",
				at + "[7].addresses[0]: 224.0.0.1 is unspecified, loopback or multicast",
			}},
		{"IPv6", func(s *discoveryv1.EndpointSlice) {
			s.AddressType, s.Endpoints[0].Addresses = discoveryv1.AddressTypeIPv6, []string{"fd00::1"}
		}, []service.Endpoint{ready("[fd00::1]:8080")}, nil},
		{"IPv4 in a slice of IPv6", func(s *discoveryv1.EndpointSlice) {
			s.AddressType = discoveryv1.AddressTypeIPv6
			s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{"::ffff:10.0.0.1"}})
		}, nil, []string{
			at + "[0].addresses[0]: 10.244.1.1 is not of addressType IPv6",
			at + "[1].addresses[0]: 10.0.0.1 is not of addressType IPv6",
		}},
		{"unknown address type", func(s *discoveryv1.EndpointSlice) { s.AddressType = "IPX" }, nil,
			[]string{`EndpointSlice web-1: addressType: "IPX" is not IPv4, IPv6 or FQDN`}},
	}
}

func metadataCases() []sliceCase {
	first := []service.Endpoint{ready("10.244.1.1:8080")}
	return []sliceCase{
		{"host names",
			func(s *discoveryv1.EndpointSlice) { s.AddressType = discoveryv1.AddressTypeFQDN }, nil, nil},
		{"headless",
			func(s *discoveryv1.EndpointSlice) { s.Labels[corev1.IsHeadlessService] = "" }, nil, nil},
		{"of no Service", func(s *discoveryv1.EndpointSlice) { s.Labels = nil }, nil, nil},
		{"of another Service",
			func(s *discoveryv1.EndpointSlice) { s.Labels[discoveryv1.LabelServiceName] = "other" },
			nil, nil},
		{"of another namespace", func(s *discoveryv1.EndpointSlice) { s.Namespace = "other" }, nil, nil},
		{"node and hints", func(s *discoveryv1.EndpointSlice) {
			e := &s.Endpoints[0]
			e.NodeName = new("n1")
			e.Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "a"}, {Name: "b"}},
				ForNodes: []discoveryv1.ForNode{{Name: "n2"}}}
		},
			[]service.Endpoint{{Backend: first[0].Backend, Ready: true, Serving: true, Node: "n1",
				ZoneHints: []string{"a", "b"}, NodeHints: []string{"n2"}}}, nil},
		{"empty hints",
			func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Hints = &discoveryv1.EndpointHints{} },
			first, nil},
	}
}

// Without conditions, an endpoint is ready, serving and not terminating.
func conditionCases() []sliceCase {
	yes, no := new(true), new(false)
	conditions := func(c discoveryv1.EndpointConditions) func(*discoveryv1.EndpointSlice) {
		return func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Conditions = c }
	}
	is := func(ready, serving, terminating bool) []service.Endpoint {
		endpoint := service.Endpoint{Ready: ready, Serving: serving, Terminating: terminating}
		endpoint.Backend = webReady().Backend
		return []service.Endpoint{endpoint}
	}
	type is3 = discoveryv1.EndpointConditions
	return []sliceCase{
		{"nothing set", conditions(is3{}), is(true, true, false), nil},
		{"ready only", conditions(is3{Ready: yes}), is(true, true, false), nil},
		{"not ready only", conditions(is3{Ready: no}), is(false, true, false), nil},
		{"all false", conditions(is3{Ready: no, Serving: no, Terminating: no}), is(false, false, false), nil},
		{"all true", conditions(is3{Ready: yes, Serving: yes, Terminating: yes}), is(true, true, true), nil},
		{"draining", conditions(is3{Ready: no, Serving: yes, Terminating: yes}), is(false, true, true), nil},
		{"draining, serving not set",
			conditions(is3{Ready: no, Terminating: yes}), is(false, true, true), nil},
		{"gone", conditions(is3{Ready: no, Serving: no, Terminating: yes}), is(false, false, true), nil},
	}
}

func webReady() service.Endpoint { return ready("10.244.1.1:8080") }
