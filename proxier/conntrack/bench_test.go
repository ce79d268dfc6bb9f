package conntrack

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/rules/service"
)

// BenchmarkClean deletes the 2,000 flows of one frontend out of 200,000 UDP flows: with a filter in the
// kernel, and without one, as on Linux before 5.8.
func BenchmarkClean(b *testing.B) {
	const flows, frontends = 200_000, 100
	address := func(n int) netip.Addr {
		return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
	}
	for _, family := range service.Families() {
		ns := lab.TestNamespace(b)
		var all, some []entry
		for i := range flows {
			at := func(n int, port uint16) netip.AddrPort {
				return in(family, netip.AddrPortFrom(address(n), port).String())
			}
			e := entry{
				protocol: service.UDP,
				client:   at(0x100000+i/frontends, 4000),
				frontend: at(0x600000+i%frontends, 53),
				backend:  at(0x700000+i%frontends, 5353),
			}
			all = append(all, e)
			if i%frontends == 0 {
				some = append(some, e)
			}
		}
		create(b, ns, all)
		stale := allOf(some[:1])
		for _, filtered := range []bool{true, false} {
			b.Run(fmt.Sprintf("%s/filtered=%t", family, filtered), func(b *testing.B) {
				b.ReportAllocs()
				for range b.N {
					deleted, _, err := cleanIn(ns, family, stale, filtered)
					if err != nil || deleted != len(some) {
						b.Fatalf("deleted %d flows, error %v; want %d", deleted, err, len(some))
					}
					b.StopTimer()
					create(b, ns, some)
					b.StartTimer()
				}
			})
		}
		if _, _, err := cleanIn(ns, family, allOf(all), true); err != nil {
			b.Fatal(err) // the kernel's limit is for both families
		}
	}
}

// allOf names every frontend of the entries, with nothing to keep.
func allOf(entries []entry) []service.StaleFlows {
	var stale []service.StaleFlows
	for _, e := range entries {
		f := service.Frontend{Addr: e.frontend.Addr(), Protocol: e.protocol, Port: e.frontend.Port()}
		stale = append(stale, service.StaleFlows{Frontend: f})
	}
	return stale
}
