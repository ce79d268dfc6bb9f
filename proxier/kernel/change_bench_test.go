package kernel

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// BenchmarkScale changes the number of endpoints of one Service among 50,000, without and with 5,000 others that have
// session affinity: compile, difference, encoding and commit. It has the kernel validate the table where an element
// leads to a chain.
func BenchmarkScale(b *testing.B) {
	const services = 50_000
	for _, sticky := range []int{0, 5_000} {
		b.Run(fmt.Sprintf("sticky=%d", sticky), func(b *testing.B) {
			c, ruleset := testConn(b), manyServices(services)
			for i := range sticky {
				svc := manyEndpoints(3)
				svc.Name.Name = fmt.Sprintf("sticky-%d", i)
				svc.ClusterIPs = []netip.Addr{netip.AddrFrom4([4]byte{10, 120, byte(i >> 8), byte(i)})}
				svc.AffinityTimeout = 3 * time.Hour
				ruleset.Put(rules.Compile(svc, service.Node{}, ruleset.Slots))
			}
			if err := c.Apply(rules.Diff(ruleset, rules.Programmed{}), 0); err != nil {
				b.Fatal(err)
			}
			ruleset.Done()
			svc := manyEndpoints(4)
			svc.AffinityTimeout = 0
			all := svc.Ports[0].Endpoints
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				svc.Ports[0].Endpoints = all[:3+i%2]
				ruleset.Put(rules.Compile(svc, service.Node{}, ruleset.Slots))
				if err := c.Apply(ruleset.Changes(), 0); err != nil {
					b.Fatal(err)
				}
				ruleset.Done()
			}
		})
	}
}
