package rules_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

func TestPrefixesOf(t *testing.T) {
	tests := []struct {
		name     string
		family   service.Family
		in, want string
	}{
		{"none", service.IPv4, "", ""},
		{"the family's own", service.IPv4, "10.0.0.0/8 fd00::/8", "10.0.0.0/8"},
		{"IPv6", service.IPv6, "10.0.0.0/8 fd00:1::/32 fd00::/8", "fd00::/8"},
		{"sorted", service.IPv4, "192.168.0.0/16 10.0.0.0/8", "10.0.0.0/8 192.168.0.0/16"},
		{"a wide one contains several", service.IPv4, "10.1.0.0/16 10.2.0.0/16 11.0.0.0/8 10.0.0.0/8",
			"10.0.0.0/8 11.0.0.0/8"},
		{"neighbours stay", service.IPv4, "10.0.0.0/9 10.128.0.0/9", "10.0.0.0/9 10.128.0.0/9"},
		{"same address, two lengths", service.IPv4, "10.0.0.0/24 10.0.0.0/16 10.0.0.0/32", "10.0.0.0/16"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got string
			for i, p := range rules.PrefixesOf(tt.family, prefixes(tt.in)) {
				if i > 0 {
					got += " "
				}
				got += p.String()
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("prefixes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPrefixProperties(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		g := generator{Rand: rnd}
		in := some(g, 12,
			prefixes("0.0.0.0/0 10.0.0.0/8 10.0.0.0/9 10.128.0.0/9 10.1.0.0/16 10.1.2.3/24 10.1.2.3/32 "+
				"11.0.0.0/8 fd00::/8")...)
		out := rules.PrefixesOf(service.IPv4, in)
		for i, p := range out {
			for _, q := range out[i+1:] {
				if p.Overlaps(q) || p.Compare(q) >= 0 {
					t.Fatalf("seed %d: prefixesOf(%v) = %v: overlapping or not sorted", seed, in, out)
				}
			}
		}
		for _, p := range in {
			covered := slices.ContainsFunc(out, func(q netip.Prefix) bool {
				return q.Contains(p.Addr()) && q.Bits() <= p.Bits()
			})
			if p.Addr().Is4() != covered {
				t.Fatalf("seed %d: prefixesOf(%v) = %v: %s covered %t", seed, in, out, p, covered)
			}
		}
	}
}
