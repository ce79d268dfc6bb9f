package proxier

import (
	"fmt"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nftproxy/nftproxy/proxier/desired"
	"github.com/nftproxy/nftproxy/proxier/state"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// BenchmarkChange replaces one endpoint of a Service that has so many of them: it measures the way from the
// decoded EndpointSlice to the difference of the ruleset, which lies between the watch and netlink.
func BenchmarkChange(b *testing.B) {
	for _, endpoints := range []int{3, 100, 1000, 10_000} {
		b.Run(fmt.Sprint(endpoints), func(b *testing.B) {
			st := state.New("node-a")
			build := desired.NewBuilder(st, func(p desired.Problem) { b.Error(p) })
			ruleset := build.Rebuild(desired.Environment{
				Config: rules.Config{MasqueradeMark: 1 << 14, Families: service.Families()},
			}, nil)
			name := service.Name{Namespace: "default", Name: "web"}
			st.Apply(&corev1.Service{
				ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name},
				Spec: corev1.ServiceSpec{
					ClusterIP: "10.96.0.10", ClusterIPs: []string{"10.96.0.10"},
					Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}},
				},
			})
			size := min(100, endpoints)
			for part := range endpoints / size {
				st.Apply(benchSlice(part, size, 0))
			}
			build.Update(name)
			ruleset.Done()
			versions := []*discoveryv1.EndpointSlice{benchSlice(0, size, 1), benchSlice(0, size, 2)}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				st.Apply(versions[i%2])
				st.Take()
				build.Update(name)
				if d := ruleset.Changes(); d.Size() != 2 {
					b.Fatalf("%d elements, want one deleted and one added", d.Size())
				}
				ruleset.Done()
			}
		})
	}
}

// benchSlice is the part-th slice of a Service, with its middle endpoint in some version.
func benchSlice(part, size, version int) *discoveryv1.EndpointSlice {
	http, port, protocol, node := "http", int32(8080), corev1.ProtocolTCP, "node-b"
	yes := true
	s := &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4,
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("web-%d", part),
			Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		Ports: []discoveryv1.EndpointPort{{Name: &http, Port: &port, Protocol: &protocol}}}
	for i := range size {
		at := part*size + i
		addr := netip.AddrFrom4([4]byte{10, 128, byte(at >> 8), byte(at)})
		if i == size/2 {
			addr = netip.AddrFrom4([4]byte{10, byte(129 + version), byte(at >> 8), byte(at)})
		}
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{addr.String()},
			NodeName:   &node,
			Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes}})
	}
	return s
}
