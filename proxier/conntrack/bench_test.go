package conntrack

import (
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/service"
)

// busyFlows returns 200,000 flows, the same number to each of some frontends, and those to the first one.
func busyFlows(family service.Family, protocol service.Protocol, frontends int) (all, some []entry) {
	at := func(n int, port uint16) netip.AddrPort {
		address := netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
		return in(family, netip.AddrPortFrom(address, port).String())
	}
	for i := range 200_000 {
		e := entry{
			protocol: protocol,
			client:   at(0x100000+i/frontends, 4000),
			frontend: at(0x600000+i%frontends, 53),
			backend:  at(0x700000+i%frontends, 5353),
			state:    established(protocol),
		}
		all = append(all, e)
		if i%frontends == 0 {
			some = append(some, e)
		}
	}
	return all, some
}

// BenchmarkClean deletes the 2,000 flows of one frontend out of 200,000 UDP flows: with a filter in the
// kernel, and without one, as on Linux before 5.8.
func BenchmarkClean(b *testing.B) {
	for _, family := range service.Families() {
		ns := lab.TestNamespace(b)
		all, some := busyFlows(family, service.UDP, 100)
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

// BenchmarkOpen counts the open connections of 200,000: those of one frontend of 100, and those of each. With
// 50,000 frontends four connections share a path.
func BenchmarkOpen(b *testing.B) {
	for _, family := range service.Families() {
		for _, frontends := range []int{100, 50_000} {
			ns := lab.TestNamespace(b)
			all, some := busyFlows(family, service.TCP, frontends)
			for i := range all {
				all[i].translated = true
			}
			create(b, ns, all)
			one := frontendOf(service.TCP, some[0].frontend)
			b.Run(fmt.Sprintf("%s/%d/one", family, frontends), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if found := openAt(b, ns, one); found[some[0].backend].Connections != len(some) {
						b.Fatalf("open: %v, want %d", found, len(some))
					}
				}
			})
			b.Run(fmt.Sprintf("%s/%d/all", family, frontends), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					found := openAll(b, ns, family, func(service.Frontend) bool { return true })
					if len(found) != frontends {
						b.Fatalf("%d paths, want %d", len(found), frontends)
					}
				}
			})
			if err := ns.Do(func() error { return flush(family) }); err != nil {
				b.Fatal(err) // the kernel's limit is for all namespaces
			}
		}
	}
}

// flush deletes all flows of a family.
func flush(family service.Family) error {
	s, err := netlink.Open()
	if err != nil {
		return err
	}
	defer s.Close()
	var w netlink.Writer
	w.Message(unix.NFNL_SUBSYS_CTNETLINK, msgDelete, 0, family.Number())
	return s.Send(&w, func(refused *netlink.Error) { err = refused })
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
