package conntrack

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/nftproxy/nftproxy/rules/service"
)

// BenchmarkClean deletes the 2,000 flows of one frontend out of 200,000 UDP flows: with a filter in the kernel, and
// as on a kernel that has none.
func BenchmarkClean(b *testing.B) {
	const flows, frontends = 200_000, 100
	address := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}) }
	for _, family := range service.Families() {
		ns := newNamespace(b)
		var all, some []entry
		for i := range flows {
			v4 := entry{
				client:   netip.AddrPortFrom(address(0x100000+i/frontends), 4000),
				frontend: netip.AddrPortFrom(address(0x600000+i%frontends), 53),
				backend:  netip.AddrPortFrom(address(0x700000+i%frontends), 5353),
			}
			e := entry{service.UDP, in(family, v4.client.String()), in(family, v4.frontend.String()), in(family, v4.backend.String()), 0}
			all = append(all, e)
			if i%frontends == 0 {
				some = append(some, e)
			}
		}
		create(b, ns, all)
		stale := []Stale{{Frontend: service.Frontend{Addr: some[0].frontend.Addr(), Protocol: service.UDP, Port: 53}}}
		for _, filtered := range []bool{true, false} {
			b.Run(fmt.Sprintf("%s/filtered=%t", family, filtered), func(b *testing.B) {
				b.ReportAllocs()
				for range b.N {
					deleted, err := Cleaner{NetNS: ns.FD()}.clean(family, stale, filtered)
					if err != nil || deleted != len(some) {
						b.Fatalf("deleted %d flows, error %v; want %d", deleted, err, len(some))
					}
					b.StopTimer()
					create(b, ns, some)
					b.StartTimer()
				}
			})
		}
		if _, err := (Cleaner{NetNS: ns.FD()}).Clean(family, allOf(all)); err != nil {
			b.Fatal(err) // the kernel's limit is for both families
		}
	}
}

// allOf names every frontend of the entries, with nothing to keep.
func allOf(entries []entry) []Stale {
	var stale []Stale
	for _, e := range entries {
		stale = append(stale, Stale{Frontend: service.Frontend{Addr: e.frontend.Addr(), Protocol: e.protocol, Port: e.frontend.Port()}})
	}
	return stale
}
