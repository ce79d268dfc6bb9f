package state

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/nftproxy/nftproxy/rules/service"
)

// serviceCase is a change of web, with the resulting Service and problems.
type serviceCase struct {
	name     string
	change   func(*corev1.Service)
	want     func(*service.Service) // the change of webRules, or nil
	problems []string
}

func serviceCases() []serviceCase {
	return slices.Concat(addressCases(), loadBalancerCases(), rangeCases(), policyCases(), portCases())
}

func TestService(t *testing.T) {
	for _, tt := range serviceCases() {
		t.Run(tt.name, func(t *testing.T) {
			svc, want := web(), webRules()
			tt.change(svc)
			if tt.want != nil {
				tt.want(want)
			}
			s := New("n1")
			s.Apply(svc)
			check(t, s, want, tt.problems...)
		})
	}
}

func addrs(texts string) []netip.Addr {
	var out []netip.Addr
	for _, text := range strings.Fields(texts) {
		out = append(out, netip.MustParseAddr(text))
	}
	return out
}

func prefixes(texts string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range strings.Fields(texts) {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

func addressCases() []serviceCase {
	return []serviceCase{
		{"unchanged", func(*corev1.Service) {}, nil, nil},
		{"clusterIP only", func(s *corev1.Service) { s.Spec.ClusterIPs = nil }, nil, nil},
		{"clusterIPs only", func(s *corev1.Service) { s.Spec.ClusterIP = "" }, nil, nil},
		{"dual stack", func(s *corev1.Service) { s.Spec.ClusterIPs = []string{"10.96.0.10", "fd00:96::10"} },
			func(s *service.Service) { s.ClusterIPs = addrs("10.96.0.10 fd00:96::10") }, nil},
		{"leading zeros",
			func(s *corev1.Service) { s.Spec.ClusterIPs = []string{"010.096.000.010"} }, nil, nil},
		{"IPv4 in IPv6",
			func(s *corev1.Service) { s.Spec.ClusterIPs = []string{"::ffff:10.96.0.10"} }, nil, nil},
		{"bad ClusterIPs, one good", func(s *corev1.Service) {
			s.Spec.ClusterIPs = []string{"", "nonsense", "10.96.0.10", "10.96.0.300", "None", "10.96.0.0/16",
				"fe80::1%eth0"}
		}, nil, []string{
			`spec.clusterIPs[0]: "" is not an IP address`,
			`spec.clusterIPs[1]: "nonsense" is not an IP address`,
			`spec.clusterIPs[3]: "10.96.0.300" is not an IP address`,
			`spec.clusterIPs[4]: "None" is not an IP address`,
			`spec.clusterIPs[5]: "10.96.0.0/16" is not an IP address`,
			`spec.clusterIPs[6]: "fe80::1%eth0" is not an IP address`,
		}},
		{"addresses that would capture the host", func(s *corev1.Service) {
			s.Spec.ClusterIPs = []string{"10.96.0.10", "127.0.0.1", "::1", "0.0.0.0", "::", "224.0.0.1",
				"ff02::1", "::ffff:127.0.0.1"}
		}, nil, []string{
			"spec.clusterIPs[1]: 127.0.0.1 is unspecified, loopback or multicast",
			"spec.clusterIPs[2]: ::1 is unspecified, loopback or multicast",
			"spec.clusterIPs[3]: 0.0.0.0 is unspecified, loopback or multicast",
			"spec.clusterIPs[4]: :: is unspecified, loopback or multicast",
			"spec.clusterIPs[5]: 224.0.0.1 is unspecified, loopback or multicast",
			"spec.clusterIPs[6]: ff02::1 is unspecified, loopback or multicast",
			"spec.clusterIPs[7]: 127.0.0.1 is unspecified, loopback or multicast",
		}},
		{"external IPs",
			func(s *corev1.Service) { s.Spec.ExternalIPs = []string{"198.51.100.1", "x", "2001:db8::1"} },
			func(s *service.Service) { s.ExternalIPs = addrs("198.51.100.1 2001:db8::1") },
			[]string{`spec.externalIPs[1]: "x" is not an IP address`}},
	}
}

func loadBalancerCases() []serviceCase {
	lb := func(ips ...string) func(*corev1.Service) {
		return func(s *corev1.Service) {
			for _, ip := range ips {
				s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress,
					corev1.LoadBalancerIngress{IP: ip})
			}
		}
	}
	return []serviceCase{
		{"load-balancer IPs", lb("203.0.113.1", "", "x", "2001:db8::2"),
			func(s *service.Service) { s.LoadBalancerIPs = addrs("203.0.113.1 2001:db8::2") },
			[]string{`status.loadBalancer.ingress[2]: "x" is not an IP address`}},
		{"load-balancer host name", func(s *corev1.Service) {
			s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{Hostname: "lb.example.com"}}
		}, nil, nil},
		{"ipMode", func(s *corev1.Service) {
			s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{
				{IP: "203.0.113.1", IPMode: new(corev1.LoadBalancerIPModeProxy)},
				{IP: "203.0.113.2", IPMode: new(corev1.LoadBalancerIPModeVIP)},
				{IP: "203.0.113.3"}, {IP: "203.0.113.4", IPMode: new(corev1.LoadBalancerIPMode("Other"))},
			}
		}, func(s *service.Service) { s.LoadBalancerIPs = addrs("203.0.113.2 203.0.113.3") }, nil},
	}
}

func rangeCases() []serviceCase {
	ranges := func(cidrs ...string) func(*corev1.Service) {
		return func(s *corev1.Service) { s.Spec.LoadBalancerSourceRanges = cidrs }
	}
	admitted := func(cidrs string) func(*service.Service) {
		return func(s *service.Service) { s.SourceRanges = prefixes(cidrs) }
	}
	restricted := func(cidrs string) func(*service.Service) {
		return func(s *service.Service) { s.Restricted, s.SourceRanges = true, prefixes(cidrs) }
	}
	return []serviceCase{
		{"source ranges", ranges("10.0.0.0/8", " 192.0.2.0/24\t", "2001:db8::/32"),
			admitted("10.0.0.0/8 192.0.2.0/24 2001:db8::/32"), nil},
		{"source ranges with host bits", ranges("10.1.2.3/8", "010.0.0.0/16"),
			admitted("10.0.0.0/8 10.0.0.0/16"), nil},
		{"bad source ranges admit no client", ranges("10.0.0.0", "", "10.0.0.0/33", "x/8"), restricted(""),
			[]string{
				`spec.loadBalancerSourceRanges[0]: "10.0.0.0" is not a CIDR`,
				`spec.loadBalancerSourceRanges[1]: "" is not a CIDR`,
				`spec.loadBalancerSourceRanges[2]: "10.0.0.0/33" is not a CIDR`,
				`spec.loadBalancerSourceRanges[3]: "x/8" is not a CIDR`,
			}},
		{"one bad source range", ranges("bad", "10.0.0.0/8"), restricted("10.0.0.0/8"),
			[]string{`spec.loadBalancerSourceRanges[0]: "bad" is not a CIDR`}},
	}
}

func policyCases() []serviceCase {
	affinity := func(seconds *int32) func(*corev1.Service) {
		return func(s *corev1.Service) {
			s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
			config := &corev1.ClientIPConfig{TimeoutSeconds: seconds}
			s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: config}
		}
	}
	timeout := func(d time.Duration) func(*service.Service) {
		return func(s *service.Service) { s.AffinityTimeout = d }
	}
	bad := func(seconds string) []string {
		return []string{"spec.sessionAffinityConfig.clientIP.timeoutSeconds: " + seconds +
			" is not within 1 to 86400, 10800 is used"}
	}
	local := corev1.ServiceInternalTrafficPolicyLocal
	return []serviceCase{
		{"policies Cluster", func(s *corev1.Service) {
			s.Spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyCluster)
			s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
		}, nil, nil},
		{"internalTrafficPolicy Local",
			func(s *corev1.Service) { s.Spec.InternalTrafficPolicy = &local },
			func(s *service.Service) { s.InternalLocal = true }, nil},
		{"externalTrafficPolicy Local",
			func(s *corev1.Service) { s.Spec.ExternalTrafficPolicy = "Local" },
			func(s *service.Service) { s.ExternalLocal = true }, nil},
		{"unknown policies", func(s *corev1.Service) {
			s.Spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicy("local"))
			s.Spec.ExternalTrafficPolicy, s.Spec.SessionAffinity = "Nearby", "Cookie"
		}, nil, nil},
		{"affinity without config",
			func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP },
			timeout(3 * time.Hour), nil},
		{"affinity config without clientIP", func(s *corev1.Service) {
			s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
			s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{}
		}, timeout(3 * time.Hour), nil},
		{"affinity without timeout", affinity(nil), timeout(3 * time.Hour), nil},
		{"affinity 1 s", affinity(new(int32(1))), timeout(time.Second), nil},
		{"affinity a day", affinity(new(int32(86400))), timeout(24 * time.Hour), nil},
		{"affinity 0", affinity(new(int32(0))), timeout(3 * time.Hour), bad("0")},
		{"affinity -1", affinity(new(int32(-1))), timeout(3 * time.Hour), bad("-1")},
		{"affinity too long", affinity(new(int32(86401))), timeout(3 * time.Hour), bad("86401")},
		{"timeout without affinity", func(s *corev1.Service) {
			affinity(new(int32(60)))(s)
			s.Spec.SessionAffinity = corev1.ServiceAffinityNone
		}, nil, nil},
	}
}

func portCases() []serviceCase {
	ports := func(ports ...corev1.ServicePort) func(*corev1.Service) {
		return func(s *corev1.Service) { s.Spec.Ports = append(s.Spec.Ports, ports...) }
	}
	plus := func(ports ...service.Port) func(*service.Service) {
		return func(s *service.Service) { s.Ports = append(s.Ports, ports...) }
	}
	return []serviceCase{
		{"no ports",
			func(s *corev1.Service) { s.Spec.Ports = nil }, func(s *service.Service) { s.Ports = nil }, nil},
		{"no name and no protocol", ports(corev1.ServicePort{Port: 81}),
			plus(service.Port{Protocol: service.TCP, Port: 81}), nil},
		{"protocols",
			ports(corev1.ServicePort{Name: "a", Protocol: "UDP", Port: 80},
				corev1.ServicePort{Name: "b", Protocol: "SCTP", Port: 65535}),
			plus(service.Port{Name: "a", Protocol: service.UDP, Port: 80},
				service.Port{Name: "b", Protocol: service.SCTP, Port: 65535}), nil},
		{"nodePort", ports(corev1.ServicePort{Name: "a", Port: 1, NodePort: 65535}),
			plus(service.Port{Name: "a", Protocol: service.TCP, Port: 1, NodePort: 65535}), nil},
		{"bad protocols",
			ports(corev1.ServicePort{Name: "a", Protocol: "tcp", Port: 1},
				corev1.ServicePort{Name: "b", Protocol: "ICMP", Port: 1}), nil, []string{
				`spec.ports[1].protocol: "tcp" is not TCP, UDP or SCTP`,
				`spec.ports[2].protocol: "ICMP" is not TCP, UDP or SCTP`}},
		{"bad ports",
			ports(corev1.ServicePort{Name: "a"}, corev1.ServicePort{Name: "b", Port: 70000},
				corev1.ServicePort{Name: "c", Port: -1}), nil, []string{
				"spec.ports[1].port: 0 is not within 1 to 65535",
				"spec.ports[2].port: 70000 is not within 1 to 65535",
				"spec.ports[3].port: -1 is not within 1 to 65535"}},
		{"a bad nodePort leaves the port",
			ports(corev1.ServicePort{Name: "a", Port: 1, NodePort: 70000},
				corev1.ServicePort{Name: "b", Port: 2, NodePort: -5}),
			plus(service.Port{Name: "a", Protocol: service.TCP, Port: 1},
				service.Port{Name: "b", Protocol: service.TCP, Port: 2}), []string{
				"spec.ports[1].nodePort: 70000 is not within 1 to 65535",
				"spec.ports[2].nodePort: -5 is not within 1 to 65535"}},
		{"bad names",
			ports(corev1.ServicePort{Name: "A B", Port: 1}, corev1.ServicePort{Name: "x\"\n", Port: 1},
				corev1.ServicePort{Name: strings.Repeat("x", 64), Port: 1}), nil, []string{
				`spec.ports[1].name: "A B" is not a valid port name`,
				`spec.ports[2].name: "x\"\n" is not a valid port name`,
				`spec.ports[3].name: "` + strings.Repeat("x", 64) + `" is not a valid port name`}},
		{"duplicate names",
			ports(corev1.ServicePort{Name: "http", Port: 81}, corev1.ServicePort{Port: 82},
				corev1.ServicePort{Port: 83}),
			plus(service.Port{Protocol: service.TCP, Port: 82}), []string{
				`spec.ports[1].name: "http" is the name of two ports, the first one is used`,
				`spec.ports[3].name: "" is the name of two ports, the first one is used`}},
	}
}

// A Service that we do not program has no effect.
func TestServiceNotOurs(t *testing.T) {
	tests := map[string]func(*corev1.Service){
		"ExternalName": func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName },
		"headless":     func(s *corev1.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone },
		"headless, clusterIPs only": func(s *corev1.Service) {
			s.Spec.ClusterIP, s.Spec.ClusterIPs = "", []string{corev1.ClusterIPNone}
		},
		"not allocated": func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = "", nil },
		"another proxy's": func(s *corev1.Service) {
			s.Labels = map[string]string{"service.kubernetes.io/service-proxy-name": ""}
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			svc := web()
			change(svc)
			s := New("n1")
			s.Apply(svc)
			check(t, s, nil)
			if got := taken(s); got != "[] false" {
				t.Errorf("changes are %s, want none", got)
			}
			s.Apply(web()) // now we program it
			check(t, s, webRules())
			if got := taken(s); got != "[default/web] false" {
				t.Errorf("changes are %s, want its addition", got)
			}
			s.Apply(svc)
			check(t, s, nil)
			if got := taken(s); got != "[default/web] false" {
				t.Errorf("changes are %s, want its removal", got)
			}
			if got := s.Services(); len(got) != 0 {
				t.Errorf("services are %v, want none", got)
			}
		})
	}
}

// The names of chains and maps contain the name of the Service, which must be valid.
func TestServiceNames(t *testing.T) {
	for _, name := range []service.Name{
		{Namespace: "default", Name: ""}, {Namespace: "", Name: "web"}, {Namespace: "default", Name: "Web"},
		{Namespace: "a b", Name: "web"}, {Namespace: "default", Name: "web; flush ruleset"},
		{Namespace: "default", Name: "a/b"}, {Namespace: "default", Name: "a.b"},
		{Namespace: "default", Name: strings.Repeat("x", 64)},
	} {
		svc := web()
		svc.Namespace, svc.Name = name.Namespace, name.Name
		s := New("n1")
		s.Apply(svc)
		got, problems := s.Service(name)
		if got != nil {
			t.Errorf("%q is programmed", name)
		}
		want := []string{`metadata: "` + name.String() + `" is not a valid namespace and name of a Service`}
		if diff := cmp.Diff(want, problems); diff != "" {
			t.Errorf("problems of %q (-want +got):\n%s", name, diff)
		}
	}
}
