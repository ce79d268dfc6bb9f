package state

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nftproxy/nftproxy/rules/service"
)

// A Service that is not ours has a reason until it becomes ours, or is gone.
func TestForeign(t *testing.T) {
	s, name := New("node-a"), service.Name{Namespace: "default", Name: "web"}
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}}
	for _, step := range []struct{ clusterIP, want string }{
		{"None", "headless"}, {"10.96.0.10", ""}, {"", "no ClusterIP"},
	} {
		svc.Spec.ClusterIP = step.clusterIP
		s.Apply(svc)
		if got := s.Foreign(name); (got == "") != (step.want == "") || !strings.Contains(got, step.want) {
			t.Errorf("clusterIP %q: reason %q, want %q", step.clusterIP, got, step.want)
		}
	}
	s.Delete(svc)
	if got := s.Foreign(name); got != "" {
		t.Errorf("deleted: reason %q, want none", got)
	}
}

// The zone of a node is that of the slice that came last.
func TestZone(t *testing.T) {
	s := New("node-a")
	for _, zone := range []string{"zone-1", "zone-2"} {
		s.Apply(&discoveryv1.EndpointSlice{Endpoints: []discoveryv1.Endpoint{
			{NodeName: new("node-b"), Zone: &zone}, {NodeName: new("node-c")}, {Zone: &zone}}})
		if got := s.Zone("node-b"); got != zone {
			t.Errorf("zone %q, want %q", got, zone)
		}
	}
	if got := s.Zone("node-c"); got != "" {
		t.Errorf("node-c has zone %q", got)
	}
}

func TestClaiming(t *testing.T) {
	s := New("node-a")
	for _, svc := range []struct {
		name, clusterIP, externalIP string
		nodePort                    int32
	}{{"b", "10.96.0.10", "198.51.100.1", 30080}, {"a", "10.96.0.11", "198.51.100.1", 0}} {
		s.Apply(&corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: svc.name},
			Spec: corev1.ServiceSpec{ClusterIP: svc.clusterIP, ExternalIPs: []string{svc.externalIP},
				Ports: []corev1.ServicePort{{Port: 80, NodePort: svc.nodePort}}},
		})
	}
	for _, q := range []struct {
		addr string
		port uint16
		want []string
	}{
		{"10.96.0.11", 0, []string{"a"}}, {"198.51.100.1", 0, []string{"a", "b"}},
		{"192.0.2.1", 30080, []string{"b"}}, {"192.0.2.1", 0, nil},
	} {
		var got []string
		for _, name := range s.Claiming(netip.MustParseAddr(q.addr), q.port) {
			got = append(got, name.Name)
		}
		if diff := cmp.Diff(q.want, got); diff != "" {
			t.Errorf("%s %d (-want +got):\n%s", q.addr, q.port, diff)
		}
	}
}
