package rules_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

func TestSourceRanges(t *testing.T) {
	const (
		lb   = "203.0.113.1 . tcp . 80 -> external-2 " + both + " from "
		lb6  = "2001:db8::80 . tcp . 80 -> no-endpoints from "
		ip   = "203.0.113.1"
		dual = "203.0.113.1 2001:db8::80"
	)
	tests := []struct {
		name    string
		change  func(*service.Service)
		ranges  string
		entries []string // without those of the ClusterIPs
	}{
		{"one range", func(s *service.Service) { s.LoadBalancerIPs = addrs(ip) }, "198.51.100.0/24",
			[]string{lb + "[198.51.100.0/24]"}},
		{"given, but all are invalid", func(s *service.Service) { s.LoadBalancerIPs = addrs(ip) },
			"", []string{lb + "[]"}},
		{"each family has its own", func(s *service.Service) { s.LoadBalancerIPs = addrs(dual) },
			"2001:db8:1::/48 198.51.100.0/24",
			[]string{lb + "[198.51.100.0/24]", lb6 + "[2001:db8:1::/48]"}},
		{"a family without range admits none", func(s *service.Service) { s.LoadBalancerIPs = addrs(dual) },
			"198.51.100.0/24",
			[]string{lb + "[198.51.100.0/24]", lb6 + "[]"}},
		{"overlapping ranges are merged", func(s *service.Service) { s.LoadBalancerIPs = addrs(ip) },
			"198.51.100.128/25 10.0.0.0/8 198.51.100.0/24 10.1.0.0/16 198.51.100.0/24",
			[]string{lb + "[10.0.0.0/8 198.51.100.0/24]"}},
		{"host bits are masked", func(s *service.Service) { s.LoadBalancerIPs = addrs(ip) },
			"198.51.100.77/24 198.51.100.1/32", []string{lb + "[198.51.100.0/24]"}},
		{"all sources", func(s *service.Service) { s.LoadBalancerIPs = addrs(ip) }, "10.0.0.0/8 0.0.0.0/0",
			[]string{lb + "[0.0.0.0/0]"}},
		{"the node is admitted: load-balancer IPs are", func(s *service.Service) {
			s.LoadBalancerIPs = addrs("203.0.113.1 203.0.113.9")
		}, "192.0.2.0/24",
			[]string{
				lb + "[192.0.2.0/24 203.0.113.1/32 203.0.113.9/32]",
				"203.0.113.9 . tcp . 80 -> external-2 " + both + " from " +
					"[192.0.2.0/24 203.0.113.1/32 203.0.113.9/32]",
			}},
		{"the node is admitted and so is the load-balancer IP",
			func(s *service.Service) { s.LoadBalancerIPs = addrs(ip) }, "192.0.2.0/24 203.0.113.0/24",
			[]string{lb + "[192.0.2.0/24 203.0.113.0/24]"}},
		{"the node of one family is admitted", func(s *service.Service) { s.LoadBalancerIPs = addrs(dual) },
			"2001:db8::/64 198.51.100.0/24",
			[]string{lb + "[198.51.100.0/24]", lb6 + "[2001:db8::/64]"}},
		{"external IPs and nodePorts are open", func(s *service.Service) {
			s.LoadBalancerIPs, s.ExternalIPs = addrs(ip), addrs("198.51.100.1")
			s.Ports[0].NodePort = 30080
		}, "10.0.0.0/8", []string{
			"192.0.2.1 . tcp . 30080 -> external-2 " + both,
			"2001:db8::1 . tcp . 30080 -> no-endpoints",
			lb + "[10.0.0.0/8]",
			"198.51.100.1 . tcp . 80 -> external-2 " + both,
		}},
		{"a nodePort that is the load-balancer IP and port is restricted", func(s *service.Service) {
			s.LoadBalancerIPs, s.Ports[0].NodePort = addrs("192.0.2.1"), 80
		}, "10.0.0.0/8", []string{
			"192.0.2.1 . tcp . 80 -> external-2 " + both + " from [10.0.0.0/8]",
			"2001:db8::1 . tcp . 80 -> no-endpoints",
		}},
		{"an external IP that is the load-balancer IP is restricted", func(s *service.Service) {
			s.LoadBalancerIPs, s.ExternalIPs = addrs(ip), addrs(ip)
		}, "10.0.0.0/8", []string{lb + "[10.0.0.0/8]"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			svc := web()
			tt.change(svc)
			svc.ClusterIPs = addrs("10.96.0.10 fd00:96::10")
			svc.Restricted, svc.SourceRanges = true, prefixes(tt.ranges)
			c := compileAt(svc, noSlots)
			c.Entries = slices.DeleteFunc(c.Entries, func(e rules.Entry) bool {
				return slices.Contains(svc.ClusterIPs, e.Frontend.Addr)
			})
			if diff := cmp.Diff(tt.entries, entryTexts(c)); diff != "" {
				t.Errorf("entries (-want +got):\n%s", diff)
			}
		})
	}
}

// Only the size of an object limits its number of ranges, and other Services wait while it is compiled.
func TestManySourceRanges(t *testing.T) {
	svc := web()
	svc.LoadBalancerIPs, svc.Restricted = addrs("203.0.113.1"), true
	for i := range 10000 {
		svc.SourceRanges = append(svc.SourceRanges,
			netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32))
	}
	start := time.Now()
	compileAt(svc, noSlots)
	if took := time.Since(start); took > time.Second {
		t.Errorf("%d source ranges took %s, want a few milliseconds", len(svc.SourceRanges), took)
	}
}
