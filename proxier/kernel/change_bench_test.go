package kernel

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// BenchmarkScale changes the number of endpoints of one Service among 50,000: compile, difference, encoding
// and commit. Other Services have session affinity, or none has, and a number of clients is remembered.
func BenchmarkScale(b *testing.B) {
	for _, other := range []struct{ sticky, clients int }{{0, 0}, {5_000, 0}, {5_000, 200_000}} {
		b.Run(fmt.Sprintf("sticky=%d/clients=%d", other.sticky, other.clients), func(b *testing.B) {
			ns := lab.TestNamespace(b)
			c, ruleset := testDial(b, ns, Options{}), manyServices(50_000)
			for i := range other.sticky {
				svc := manyEndpoints(3)
				svc.Name.Name = fmt.Sprintf("sticky-%d", i)
				svc.ClusterIPs = []netip.Addr{stickyAddr(i)}
				svc.AffinityTimeout = 3 * time.Hour
				ruleset.Put(rules.Compile(svc, service.Node{}, ruleset.Slots, rules.MaxShare))
			}
			mustApply(b, c, ruleset)
			ruleset.Done()
			rememberClients(b, ns, other.clients)
			benchmarkScale(b, c, ruleset, "", 0)
			benchmarkScale(b, c, ruleset, "sticky-", 3*time.Hour)
			b.Run("restart", func(b *testing.B) {
				for b.Loop() {
					if d := mustDiff(b, c, ruleset); d.Size() > 0 {
						b.Fatalf("a restart writes %d elements", d.Size())
					}
				}
			})
		})
	}
}

// benchmarkScale gives one Service three endpoints and four in turns.
func benchmarkScale(b *testing.B, c *Conn, ruleset *rules.Ruleset, name string, affinity time.Duration) {
	svc := manyEndpoints(4)
	svc.AffinityTimeout = affinity
	all := svc.Ports[0].Endpoints
	b.Run(name+"scaled", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			svc.Ports[0].Endpoints = all[:3+i%2]
			ruleset.Put(rules.Compile(svc, service.Node{}, ruleset.Slots, rules.MaxShare))
			if err := c.Apply(ruleset.Changes()); err != nil {
				b.Fatal(err)
			}
			ruleset.Done()
		}
	})
}

// stickyAddr returns the ClusterIP of the i-th Service with session affinity.
func stickyAddr(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 120, byte(i >> 8), byte(i)})
}

// rememberClients remembers n clients of the first Services with session affinity, 1,000 of each.
func rememberClients(b *testing.B, ns *lab.Namespace, n int) {
	b.Helper()
	const each = 1_000
	for i := 0; i < n; i += each {
		elements := make([]string, each)
		for j := range elements {
			elements[j] = fmt.Sprintf("100.64.%d.%d . %s . tcp . 80 timeout 3h : a80:0",
				j>>8, j&0xff, stickyAddr(i/each))
		}
		_, err := ns.Nft("add element ip nftproxy affinity { " + strings.Join(elements, ", ") + " }")
		if err != nil {
			b.Fatal(err)
		}
	}
}
