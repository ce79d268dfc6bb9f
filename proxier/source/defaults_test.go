package source

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/ptr"
)

func TestServiceDefaults(t *testing.T) {
	cluster := ptr.To(corev1.ServiceInternalTrafficPolicyCluster)
	sticky := func(seconds int32) *corev1.SessionAffinityConfig {
		return &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
	}
	for _, test := range []struct {
		name     string
		in, want corev1.ServiceSpec
	}{{
		name: "empty",
		want: corev1.ServiceSpec{Type: "ClusterIP", SessionAffinity: "None", InternalTrafficPolicy: cluster},
	}, {
		name: "cluster IP and ports",
		in:   corev1.ServiceSpec{ClusterIP: "10.0.0.1", Ports: []corev1.ServicePort{{Port: 80}, {Port: 53, Protocol: "UDP"}}},
		want: corev1.ServiceSpec{Type: "ClusterIP", SessionAffinity: "None", InternalTrafficPolicy: cluster,
			ClusterIP: "10.0.0.1", ClusterIPs: []string{"10.0.0.1"},
			Ports: []corev1.ServicePort{{Port: 80, Protocol: "TCP"}, {Port: 53, Protocol: "UDP"}}},
	}, {
		name: "cluster IPs",
		in:   corev1.ServiceSpec{ClusterIPs: []string{"None", "x"}},
		want: corev1.ServiceSpec{Type: "ClusterIP", SessionAffinity: "None", InternalTrafficPolicy: cluster,
			ClusterIP: "None", ClusterIPs: []string{"None", "x"}},
	}, {
		name: "node port, sticky",
		in:   corev1.ServiceSpec{Type: "NodePort", SessionAffinity: "ClientIP"},
		want: corev1.ServiceSpec{Type: "NodePort", SessionAffinity: "ClientIP", SessionAffinityConfig: sticky(10800),
			InternalTrafficPolicy: cluster, ExternalTrafficPolicy: "Cluster"},
	}, {
		name: "sticky without a timeout",
		in:   corev1.ServiceSpec{Type: "LoadBalancer", SessionAffinity: "ClientIP", SessionAffinityConfig: &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{}}},
		want: corev1.ServiceSpec{Type: "LoadBalancer", SessionAffinity: "ClientIP", SessionAffinityConfig: sticky(10800),
			InternalTrafficPolicy: cluster, ExternalTrafficPolicy: "Cluster"},
	}, {
		name: "external IP",
		in:   corev1.ServiceSpec{ExternalIPs: []string{"1.2.3.4"}},
		want: corev1.ServiceSpec{Type: "ClusterIP", SessionAffinity: "None", InternalTrafficPolicy: cluster,
			ExternalIPs: []string{"1.2.3.4"}, ExternalTrafficPolicy: "Cluster"},
	}, {
		name: "external name",
		in:   corev1.ServiceSpec{Type: "ExternalName", ExternalName: "example.org"},
		want: corev1.ServiceSpec{Type: "ExternalName", ExternalName: "example.org", SessionAffinity: "None"},
	}, {
		name: "all said, and hostile",
		in: corev1.ServiceSpec{Type: "LoadBalancer", SessionAffinity: "ClientIP", SessionAffinityConfig: sticky(-1), ClusterIP: "a", ClusterIPs: []string{"b"},
			InternalTrafficPolicy: ptr.To(corev1.ServiceInternalTrafficPolicyLocal), ExternalTrafficPolicy: "Remote"},
		want: corev1.ServiceSpec{Type: "LoadBalancer", SessionAffinity: "ClientIP", SessionAffinityConfig: sticky(-1), ClusterIP: "a", ClusterIPs: []string{"b"},
			InternalTrafficPolicy: ptr.To(corev1.ServiceInternalTrafficPolicyLocal), ExternalTrafficPolicy: "Remote"},
	}} {
		t.Run(test.name, func(t *testing.T) {
			service := &corev1.Service{Spec: test.in}
			setDefaults(service)
			if diff := cmp.Diff(test.want, service.Spec); diff != "" {
				t.Errorf("spec (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEndpointSliceDefaults(t *testing.T) {
	slice := &discoveryv1.EndpointSlice{Ports: []discoveryv1.EndpointPort{{}, {Name: ptr.To("dns"), Protocol: ptr.To(corev1.ProtocolUDP), Port: ptr.To[int32](53)}}}
	setDefaults(slice)
	want := []discoveryv1.EndpointPort{
		{Name: ptr.To(""), Protocol: ptr.To(corev1.ProtocolTCP)},
		{Name: ptr.To("dns"), Protocol: ptr.To(corev1.ProtocolUDP), Port: ptr.To[int32](53)},
	}
	if diff := cmp.Diff(want, slice.Ports); diff != "" {
		t.Errorf("ports (-want +got):\n%s", diff)
	}
}
