package rules_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// compileCase changes the Service web and has the result for node n1.
type compileCase struct {
	name     string
	change   func(*service.Service)
	entries  []string
	problems []string
}

func TestCompile(t *testing.T) {
	for _, tt := range slices.Concat(frontendCases(), clashCases(), policyCases(), stickyCases()) {
		t.Run(tt.name, func(t *testing.T) {
			svc := web()
			tt.change(svc)
			c := compileAt(svc, noSlots)
			if diff := cmp.Diff(tt.entries, entryTexts(c)); diff != "" {
				t.Errorf("entries (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.problems, c.Problems); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			if c.Name != svc.Name || !c.Created.Equal(svc.Created) {
				t.Errorf("compiled is %s of %s, want %s of %s", c.Name, c.Created, svc.Name, svc.Created)
			}
		})
	}
}

const (
	both  = "[10.244.1.1:8080 10.244.2.1:8080]"
	here  = "[10.244.1.1:8080]"
	both6 = "[[fd00::1]:8080 [fd00::2]:8080]"
)

// frontendCases are about the frontends of a Service.
func frontendCases() []compileCase {
	v6 := append(ready("n1", "[fd00::1]:8080"), ready("n2", "[fd00::2]:8080")...)
	return []compileCase{
		{"ClusterIP", func(s *service.Service) {},
			[]string{"10.96.0.10 . tcp . 80 -> cluster-2 " + both}, nil},
		{"no address", func(s *service.Service) { s.ClusterIPs = nil }, nil, nil},
		{"no port", func(s *service.Service) { s.Ports = nil }, nil, nil},
		{"every kind", func(s *service.Service) {
			s.ClusterIPs = addrs("10.96.0.10 fd00:96::10")
			s.LoadBalancerIPs, s.ExternalIPs = addrs("203.0.113.1 203.0.113.2"), addrs("198.51.100.1")
			s.Ports[0].NodePort = 30080
		}, []string{
			"10.96.0.10 . tcp . 80 -> cluster-2 " + both,
			"fd00:96::10 . tcp . 80 -> no-endpoints",
			"192.0.2.1 . tcp . 30080 -> external-2 " + both,
			"2001:db8::1 . tcp . 30080 -> no-endpoints",
			"203.0.113.1 . tcp . 80 -> external-2 " + both,
			"203.0.113.2 . tcp . 80 -> external-2 " + both,
			"198.51.100.1 . tcp . 80 -> external-2 " + both,
		}, nil},
		{"a family without ClusterIP is not the Service's", func(s *service.Service) {
			s.LoadBalancerIPs, s.ExternalIPs = addrs("2001:db8::80"), addrs("2001:db8::81")
			s.Ports[0].NodePort = 30080
		}, []string{
			"10.96.0.10 . tcp . 80 -> cluster-2 " + both,
			"192.0.2.1 . tcp . 30080 -> external-2 " + both,
		}, nil},
		{"dual stack", func(s *service.Service) {
			s.ClusterIPs = addrs("10.96.0.10 fd00:96::10")
			s.Ports[0].Endpoints = append(s.Ports[0].Endpoints, v6...)
			s.Ports[0].NodePort = 30080
		}, []string{
			"10.96.0.10 . tcp . 80 -> cluster-2 " + both,
			"fd00:96::10 . tcp . 80 -> cluster-2 " + both6,
			"192.0.2.1 . tcp . 30080 -> external-2 " + both,
			"2001:db8::1 . tcp . 30080 -> external-2 " + both6,
		}, nil},
		{"dual stack, endpoints of one family", func(s *service.Service) {
			s.ClusterIPs = addrs("fd00:96::10 10.96.0.10")
		}, []string{
			"10.96.0.10 . tcp . 80 -> cluster-2 " + both,
			"fd00:96::10 . tcp . 80 -> no-endpoints",
		}, nil},
		{"one number on two protocols, and SCTP", func(s *service.Service) {
			s.Ports = append(s.Ports, service.Port{Name: "dns", Protocol: service.UDP, Port: 80},
				service.Port{Name: "sig", Protocol: service.SCTP, Port: 36412})
		}, []string{
			"10.96.0.10 . tcp . 80 -> cluster-2 " + both,
			"10.96.0.10 . udp . 80 -> no-endpoints",
			"10.96.0.10 . sctp . 36412 -> no-endpoints",
		}, nil},
	}
}

// clashCases are about a Service that claims a frontend twice.
func clashCases() []compileCase {
	return []compileCase{
		{"an address twice", func(s *service.Service) { s.ClusterIPs = addrs("10.96.0.10 10.96.0.10") },
			[]string{"10.96.0.10 . tcp . 80 -> cluster-2 " + both}, nil},
		{"an external IP that is the ClusterIP", func(s *service.Service) { s.ExternalIPs = s.ClusterIPs },
			[]string{"10.96.0.10 . tcp . 80 -> cluster-2 " + both}, nil},
		{"a port twice", func(s *service.Service) {
			s.Ports = append(s.Ports,
				service.Port{Name: "again", Protocol: service.TCP, Port: 80, NodePort: 30080})
		}, []string{"10.96.0.10 . tcp . 80 -> cluster-2 " + both},
			[]string{"port 80/tcp: the Service has it twice, the first counts"}},
		{"a nodePort twice", func(s *service.Service) {
			s.ClusterIPs = addrs("10.96.0.10 fd00:96::10")
			s.Ports[0].NodePort = 30080
			s.Ports = append(s.Ports,
				service.Port{Name: "b", Protocol: service.TCP, Port: 81, NodePort: 30080})
		}, []string{
			"10.96.0.10 . tcp . 80 -> cluster-2 " + both,
			"fd00:96::10 . tcp . 80 -> no-endpoints",
			"10.96.0.10 . tcp . 81 -> no-endpoints",
			"fd00:96::10 . tcp . 81 -> no-endpoints",
			"192.0.2.1 . tcp . 30080 -> external-2 " + both,
			"2001:db8::1 . tcp . 30080 -> no-endpoints",
		}, []string{
			"192.0.2.1 . tcp . 30080: two ports of the Service claim it, the first has it",
			"2001:db8::1 . tcp . 30080: two ports of the Service claim it, the first has it",
		}},
	}
}

// policyCases are about the endpoints of a frontend.
func policyCases() []compileCase {
	local := func(s *service.Service) { s.ExternalIPs, s.ExternalLocal = addrs("198.51.100.1"), true }
	remote := func(s *service.Service) { s.Ports[0].Endpoints = s.Ports[0].Endpoints[1:] }
	return []compileCase{
		{"external Local, one here", local, []string{
			"10.96.0.10 . tcp . 80 -> cluster-2 " + both,
			"198.51.100.1 . tcp . 80 -> local-1-of-2 " + both + " local " + here,
		}, nil},
		{"external Local, none here", func(s *service.Service) { local(s); remote(s) }, []string{
			"10.96.0.10 . tcp . 80 -> cluster-1 [10.244.2.1:8080]",
			"198.51.100.1 . tcp . 80 -> local-0-of-1 [10.244.2.1:8080]",
		}, nil},
		{"external Local, none anywhere", func(s *service.Service) { local(s); s.Ports[0].Endpoints = nil },
			[]string{
				"10.96.0.10 . tcp . 80 -> no-endpoints",
				"198.51.100.1 . tcp . 80 -> no-endpoints",
			}, nil},
		{"external Local, draining here", func(s *service.Service) {
			local(s)
			s.Ports[0].Endpoints[0].Ready, s.Ports[0].Endpoints[0].Terminating = false, true
		}, []string{
			"10.96.0.10 . tcp . 80 -> cluster-1 [10.244.2.1:8080]",
			"198.51.100.1 . tcp . 80 -> local-1-of-1 [10.244.2.1:8080] local " + here,
		}, nil},
		{"internal Local, one here", func(s *service.Service) {
			s.InternalLocal, s.ExternalIPs = true, addrs("198.51.100.1")
		}, []string{
			"10.96.0.10 . tcp . 80 -> cluster-1 " + here,
			"198.51.100.1 . tcp . 80 -> external-2 " + both,
		}, nil},
		{"internal Local, none here", func(s *service.Service) { s.InternalLocal = true; remote(s) },
			[]string{"10.96.0.10 . tcp . 80 -> no-local-endpoints"}, nil},
		{"internal Local, none anywhere", func(s *service.Service) {
			s.InternalLocal, s.Ports[0].Endpoints = true, nil
		},
			[]string{"10.96.0.10 . tcp . 80 -> no-endpoints"}, nil},
		{"zone hints", func(s *service.Service) {
			for i := range s.Ports[0].Endpoints {
				s.Ports[0].Endpoints[i].ZoneHints = []string{string(rune('b' - i))}
			}
			local(s)
		}, []string{
			"10.96.0.10 . tcp . 80 -> cluster-1 [10.244.2.1:8080]",
			"198.51.100.1 . tcp . 80 -> local-1-of-1 [10.244.2.1:8080] local " + here,
		}, nil},
	}
}

// stickyCases are about session affinity.
func stickyCases() []compileCase {
	local := func(s *service.Service) { s.ExternalIPs, s.ExternalLocal = addrs("198.51.100.1"), true }
	remote := func(s *service.Service) { s.Ports[0].Endpoints = s.Ports[0].Endpoints[1:] }
	return []compileCase{
		{"sticky", func(s *service.Service) { s.AffinityTimeout = time.Hour; local(s) }, []string{
			"10.96.0.10 . tcp . 80 -> sticky-cluster-2-3600 " + both + " as [af4:101 af4:201]",
			"198.51.100.1 . tcp . 80 -> sticky-local-1-of-2-3600 " + both + " as [af4:101 af4:201] local " + here +
				" as [af4:101]",
		}, nil},
		{"sticky, none here", func(s *service.Service) {
			s.AffinityTimeout = time.Hour
			local(s)
			remote(s)
		}, []string{
			"10.96.0.10 . tcp . 80 -> sticky-cluster-1-3600 [10.244.2.1:8080] as [af4:201]",
			"198.51.100.1 . tcp . 80 -> sticky-local-0-of-1-3600 [10.244.2.1:8080] as [af4:201]",
		}, nil},
		{"sticky, internal Local, none here", func(s *service.Service) {
			s.AffinityTimeout, s.InternalLocal = time.Hour, true
			remote(s)
		}, []string{"10.96.0.10 . tcp . 80 -> no-local-endpoints"}, nil},
		{"sticky without endpoints", func(s *service.Service) {
			s.AffinityTimeout, s.Ports[0].Endpoints = time.Hour, nil
		},
			[]string{"10.96.0.10 . tcp . 80 -> no-endpoints"}, nil},
	}
}

func TestCompileNames(t *testing.T) {
	svc := web()
	svc.Ports = append(svc.Ports, service.Port{Protocol: service.UDP, Port: 53})
	c := compileAt(svc, noSlots)
	got := []string{c.Entries[0].Port, c.Entries[1].Port}
	if diff := cmp.Diff([]string{"default/web:http", "default/web"}, got); diff != "" {
		t.Errorf("port names (-want +got):\n%s", diff)
	}
}

// The hairpins are the backends on this node, also draining ones while they are used.
func TestCompileHairpins(t *testing.T) {
	svc := web()
	svc.ClusterIPs = addrs("10.96.0.10 fd00:96::10")
	svc.Ports[0].Endpoints = append(svc.Ports[0].Endpoints,
		ready("n1", "[fd00::1]:8080 10.244.1.1:9090 10.244.0.9:80")...)
	svc.Ports = append(svc.Ports,
		service.Port{Name: "b", Protocol: service.UDP, Port: 80, Endpoints: ready("n1", "10.244.1.1:53")})
	c := compileAt(svc, noSlots)
	if diff := cmp.Diff(addrs("10.244.0.9 10.244.1.1 fd00::1"), c.Hairpins, addrComparer()); diff != "" {
		t.Errorf("hairpins (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(svc.ClusterIPs, c.ClusterIPs, addrComparer()); diff != "" {
		t.Errorf("cluster IPs (-want +got):\n%s", diff)
	}
}

func addrComparer() cmp.Option { return cmp.Comparer(func(a, b netip.Addr) bool { return a == b }) }

// TestCompileHealthCheck counts the addresses of ready endpoints on the node, once for all ports of the
// Service, in each of its families.
func TestCompileHealthCheck(t *testing.T) {
	type counts = map[service.Family]int
	endpoints := append(ready("n1", "10.244.1.1:80 10.244.1.2:80 [fd00:1::1]:80"),
		on("n2", "10.244.2.1:80", "RS"), on("n1", "10.244.1.3:80", "ST"), on("", "10.244.1.4:80", "RS"),
		on("n1", "10.244.2.1:80", "RST")) // it terminates, and n2 has its address now
	for _, tt := range []struct {
		clusterIPs string
		want       counts
	}{
		{"10.96.0.10 fd00::10", counts{service.IPv4: 2, service.IPv6: 1}},
		{"10.96.0.10", counts{service.IPv4: 2}},
		{"fd00::10", counts{service.IPv6: 1}},
	} {
		svc := web()
		svc.ClusterIPs, svc.HealthCheckPort = addrs(tt.clusterIPs), 31000
		svc.Ports[0].Endpoints = endpoints
		svc.Ports = append(svc.Ports, service.Port{Name: "https", Protocol: service.TCP, Port: 443,
			Endpoints: ready("n1", "10.244.1.1:443")})
		r := rules.NewRuleset(testConfig())
		putSvc(r, svc)
		want := map[service.Name]rules.HealthCheck{svc.Name: {Port: 31000, LocalReady: tt.want}}
		if diff := cmp.Diff(want, r.HealthChecks()); diff != "" {
			t.Errorf("ClusterIPs %s (-want +got):\n%s", tt.clusterIPs, diff)
		}
		svc.HealthCheckPort = 0
		putSvc(r, svc)
		if got := r.HealthChecks(); len(got) > 0 {
			t.Errorf("without a port: %v, want no health check", got)
		}
	}
}

func TestCompileKeepsSlots(t *testing.T) {
	svc := web()
	svc.ExternalIPs, svc.ExternalLocal = addrs("198.51.100.1"), true
	svc.Ports[0].Endpoints = append(svc.Ports[0].Endpoints, ready("n1", "10.244.1.2:8080")...)
	slots := func(f service.Frontend) rules.Held {
		if f.Addr == svc.ClusterIPs[0] {
			return rules.Held{Backends: backendList("10.244.2.1:8080 10.244.9.9:8080")}
		}
		return rules.Held{Backends: backendList("- - 10.244.1.1:8080"), Locals: backendList("10.244.1.2:8080")}
	}
	want := []string{
		"10.96.0.10 . tcp . 80 -> cluster-3 [10.244.2.1:8080 10.244.1.1:8080 10.244.1.2:8080]",
		"198.51.100.1 . tcp . 80 -> local-2-of-3 [10.244.1.2:8080 10.244.2.1:8080 10.244.1.1:8080]" +
			" local [10.244.1.2:8080 10.244.1.1:8080]",
	}
	if diff := cmp.Diff(want, entryTexts(compileAt(svc, slots))); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

// Endpoints that exceed the number of slots are left out, in all frontends alike, and reported.
func TestCompileTrims(t *testing.T) {
	svc := web()
	svc.ExternalIPs, svc.ExternalLocal = addrs("198.51.100.1"), true
	eps := make([]service.Endpoint, nftables.MaxSlots+2)
	for i := range eps {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		eps[i] = service.Endpoint{Backend: netip.AddrPortFrom(addr, 80), Ready: true, Node: "n1"}
	}
	svc.Ports[0].Endpoints = eps
	c := compileAt(svc, noSlots)
	wantShapes := []rules.Shape{{Kind: rules.ShapeCluster, N: nftables.MaxSlots},
		{Kind: rules.ShapeLocal, N: nftables.MaxSlots, Locals: nftables.MaxLocalSlots}}
	for i, e := range c.Entries {
		if e.Shape != wantShapes[i] || len(e.Backends) != e.Shape.N || len(e.Locals) != e.Shape.Locals {
			t.Errorf("%s: shape %+v with %d backends and %d locals, want %+v", e.Frontend, e.Shape,
				len(e.Backends), len(e.Locals), wantShapes[i])
		}
	}
	const n = nftables.MaxSlots + 2
	checkLines(t, "problems", []string{
		fmt.Sprintf("10.96.0.10 . tcp . 80: has %d endpoints, %d are used", n, nftables.MaxSlots),
		fmt.Sprintf("198.51.100.1 . tcp . 80: has %d endpoints, %d are used", n, nftables.MaxSlots),
		fmt.Sprintf("198.51.100.1 . tcp . 80: has %d endpoints, %d are used", n, nftables.MaxLocalSlots),
	}, c.Problems)
}
