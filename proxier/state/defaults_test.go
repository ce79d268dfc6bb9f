package state

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/nftproxy/nftproxy/rules/service"
)

// defaultsCase is the spec of a Service in a manifest, and with the defaults of the API server.
type defaultsCase struct{ written, defaulted corev1.ServiceSpec }

func defaultsCases() map[string]defaultsCase {
	cluster := new(corev1.ServiceInternalTrafficPolicyCluster)
	affinity := func(seconds *int32) *corev1.SessionAffinityConfig {
		return &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: seconds}}
	}
	ports := []corev1.ServicePort{{Port: 80}}
	tcp := []corev1.ServicePort{{Port: 80, Protocol: "TCP"}}
	return map[string]defaultsCase{
		"cluster IP": {
			corev1.ServiceSpec{ClusterIP: "10.96.0.10", Ports: ports},
			corev1.ServiceSpec{Type: "ClusterIP", ClusterIP: "10.96.0.10", ClusterIPs: []string{"10.96.0.10"},
				Ports:           tcp,
				SessionAffinity: "None", InternalTrafficPolicy: cluster},
		},
		"cluster IPs": {
			corev1.ServiceSpec{ClusterIPs: []string{"10.96.0.10", "fd00::1"}, Ports: ports},
			corev1.ServiceSpec{Type: "ClusterIP", ClusterIP: "10.96.0.10",
				ClusterIPs: []string{"10.96.0.10", "fd00::1"}, Ports: tcp,
				SessionAffinity: "None", InternalTrafficPolicy: cluster},
		},
		"node port and affinity": {
			corev1.ServiceSpec{Type: "NodePort", ClusterIP: "10.96.0.10", Ports: ports,
				SessionAffinity: "ClientIP"},
			corev1.ServiceSpec{Type: "NodePort", ClusterIP: "10.96.0.10", ClusterIPs: []string{"10.96.0.10"},
				Ports:           tcp,
				SessionAffinity: "ClientIP", SessionAffinityConfig: affinity(new(int32(10800))),
				InternalTrafficPolicy: cluster, ExternalTrafficPolicy: "Cluster"},
		},
		"load balancer and affinity without a timeout": {
			corev1.ServiceSpec{Type: "LoadBalancer", ClusterIP: "10.96.0.10", Ports: ports,
				SessionAffinity:       "ClientIP",
				SessionAffinityConfig: affinity(nil)},
			corev1.ServiceSpec{Type: "LoadBalancer", ClusterIP: "10.96.0.10",
				ClusterIPs: []string{"10.96.0.10"}, Ports: tcp,
				SessionAffinity: "ClientIP", SessionAffinityConfig: affinity(new(int32(10800))),
				InternalTrafficPolicy: cluster, ExternalTrafficPolicy: "Cluster"},
		},
		"external IP": {
			corev1.ServiceSpec{ClusterIP: "10.96.0.10", Ports: ports, ExternalIPs: []string{"198.51.100.1"}},
			corev1.ServiceSpec{Type: "ClusterIP", ClusterIP: "10.96.0.10", ClusterIPs: []string{"10.96.0.10"},
				Ports:       tcp,
				ExternalIPs: []string{"198.51.100.1"}, SessionAffinity: "None",
				InternalTrafficPolicy: cluster, ExternalTrafficPolicy: "Cluster"},
		},
	}
}

// A manifest written by hand leaves out what the API server sets: see pkg/apis/core/v1/defaults.go and
// pkg/apis/discovery/v1/defaults.go in Kubernetes, and the allocation of cluster IPs. It has the same effect
// without.
func TestDefaults(t *testing.T) {
	for name, test := range defaultsCases() {
		t.Run(name, func(t *testing.T) {
			compiled := func(spec corev1.ServiceSpec, port discoveryv1.EndpointPort) *service.Service {
				svc, slice := web(), webSlice("web-1", "10.244.1.1")
				svc.Spec, slice.Ports = spec, []discoveryv1.EndpointPort{port}
				s := New("n1")
				s.Apply(svc)
				s.Apply(slice)
				got, problems := s.Service(webName())
				if len(problems) > 0 {
					t.Errorf("problems: %q", problems)
				}
				return got
			}
			port := discoveryv1.EndpointPort{Port: new(int32(8080))}
			got := compiled(test.written, port)
			port.Name, port.Protocol = new(""), new(corev1.ProtocolTCP)
			want := compiled(test.defaulted, port)
			if want == nil || len(want.Ports) != 1 || len(want.Ports[0].Endpoints) != 1 {
				t.Fatalf("with defaults: %v", want)
			}
			if diff := cmp.Diff(want, got, netipComparers()); diff != "" {
				t.Errorf("service (-with defaults +as written):\n%s", diff)
			}
		})
	}
}
