package state

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// FuzzService applies a Service with any content, and a slice with endpoints for it.
func FuzzService(f *testing.F) {
	for _, tt := range serviceCases() {
		svc := web()
		tt.change(svc)
		f.Add(marshal(f, svc))
	}
	f.Add([]byte(`{"metadata": {"name": "a\"; flush ruleset", "namespace": "x"},
		"spec": {"clusterIP": "10.0.0.1", "ports": [{"name": "\"", "port": 80}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		svc := &corev1.Service{}
		if json.Unmarshal(b, svc) != nil {
			return
		}
		slice := webSlice("slice", "10.244.1.1", "10.244.1.2")
		slice.Namespace, slice.Labels[discoveryv1.LabelServiceName] = svc.Namespace, svc.Name
		slice.Ports = nil
		for _, p := range svc.Spec.Ports {
			slice.Ports = append(slice.Ports,
				discoveryv1.EndpointPort{Name: new(p.Name), Protocol: new(p.Protocol),
					Port: new(int32(8080))})
		}
		checkObjects(t, svc, slice)
	})
}

// FuzzSlice applies an EndpointSlice with any content, and a Service with session affinity and the ports of
// the slice.
func FuzzSlice(f *testing.F) {
	for _, tt := range slices.Concat(slicePortCases(), endpointCases(), metadataCases(), conditionCases()) {
		slice := webSlice("web-1", "10.244.1.1")
		tt.change(slice)
		f.Add(marshal(f, slice))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		slice := &discoveryv1.EndpointSlice{}
		if json.Unmarshal(b, slice) != nil {
			return
		}
		svc := web()
		svc.Namespace, svc.Name = slice.Namespace, slice.Labels[discoveryv1.LabelServiceName]
		svc.Spec.ClusterIPs = []string{"10.96.0.10", "fd00:96::10"}
		svc.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		svc.Spec.ExternalIPs = []string{"198.51.100.1"}
		for i, p := range slice.Ports[:min(len(slice.Ports), 5)] {
			port := corev1.ServicePort{Port: int32(i + 1)}
			if p.Name != nil {
				port.Name = *p.Name
			}
			if p.Protocol != nil {
				port.Protocol = *p.Protocol
			}
			svc.Spec.Ports = append(svc.Spec.Ports, port)
		}
		checkObjects(t, svc, slice)
	})
}

func marshal(f *testing.F, obj any) []byte {
	f.Helper()
	b, err := json.Marshal(obj)
	if err != nil {
		f.Fatal(err)
	}
	return b
}

// line is the pattern of a line of nft text: only comments are in quotes.
const line = `^[\t ]*[-_a-z0-9@#./:,;={}()&|^!\[\]<> ]*("[-a-z0-9/:.]+"[-a-z0-9 /:.@|]*,?)?[ }]*$`

// checkObjects compiles the objects, and checks that none of their text can change the meaning of the nft
// text: all names are words for nft.
func checkObjects(t *testing.T, svc *corev1.Service, slice *discoveryv1.EndpointSlice) {
	s := New("n1")
	s.Apply(slice)
	s.Apply(svc)
	r := rules.NewRuleset(rules.Config{MasqueradeMark: 0x4000, Families: service.Families()})
	node := service.Node{Name: "n1", Zone: "a", Addrs: addrs("192.0.2.1 2001:db8::1"),
		NodePortAddrs: addrs("192.0.2.1 2001:db8::1")}
	for _, name := range s.Services() {
		if out, _ := s.Service(name); out != nil {
			r.Put(rules.Compile(out, node, r.Slots, rules.MaxShare))
		}
	}
	var text strings.Builder
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	if err := r.Changes().WriteText(&text); err != nil {
		t.Fatal(err)
	}
	legal := regexp.MustCompile(line)
	for l := range strings.SplitSeq(text.String(), "\n") {
		if !legal.MatchString(l) {
			t.Fatalf("illegal line: %q", l)
		}
	}
	s.Delete(svc)
	s.Delete(slice)
	if len(s.services)+len(s.slices)+len(s.owners) > 0 {
		t.Fatalf("left behind: %v %v %v", s.services, s.slices, s.owners)
	}
}
