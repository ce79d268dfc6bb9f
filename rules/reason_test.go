package rules

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/nftproxy/nftproxy/rules/service"
)

// An endpoint has no reason exactly if it is one of those that the compiler picks, for random endpoints in all
// conditions. Every reason occurs.
func TestReasonsAgreeWithPick(t *testing.T) {
	random, found := rand.New(rand.NewPCG(1, 2)), map[string]bool{}
	node := service.Node{Name: "a", Zone: "z1"}
	coin := func() bool { return random.IntN(2) == 0 }
	for range 20_000 {
		var all []service.Endpoint
		hints := coin()
		for range random.IntN(6) {
			ep := service.Endpoint{
				Backend: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(random.IntN(4))}), 80),
				Node:    []string{"", "a", "b"}[random.IntN(3)],
				Ready:   coin(), Serving: coin(), Terminating: coin(),
			}
			if random.IntN(8) == 0 {
				ep.Backend = netip.MustParseAddrPort("[fd00::1]:80")
			}
			if hints {
				ep.ZoneHints = []string{fmt.Sprint("z", random.IntN(3))}
				if coin() {
					ep.NodeHints = []string{[]string{"a", "b"}[random.IntN(2)]}
				}
			}
			all = append(all, ep)
		}
		cluster, local, _ := pick(all, service.IPv4, node)
		for _, here := range []bool{false, true} {
			want := cluster
			if here {
				want = local
			}
			var got []service.Backend
			for i, reason := range Reasons(all, service.IPv4, node, here) {
				if reason == "" {
					got = append(got, all[i].Backend)
				} else {
					found[reason] = true
				}
			}
			slices.SortFunc(got, service.Backend.Compare)
			if !slices.Equal(got, want) {
				t.Fatalf("local %t: endpoints %+v: no reason for %v, but picked are %v", here, all, got, want)
			}
		}
	}
	for _, reason := range []string{
		"another IP family", "terminating, and a later pod has its address", "not on this node: it is on b",
		"not on this node: the EndpointSlice names no node", "terminating, and other endpoints are ready",
		"terminating, and not serving any more", "duplicate: another EndpointSlice has it too",
		"not ready: the readiness probe of its pod fails, or the pod has not started",
		"for other nodes by hints: b", "for other zones by hints: z2",
	} {
		if !found[reason] {
			t.Errorf("no endpoint has the reason %q", reason)
		}
	}
}
