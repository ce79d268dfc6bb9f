package kernel

import (
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// BenchmarkSchedulerChange replaces one endpoint of a Service among 10,000 others, or scales it by one:
// compile, difference, encoding and commit.
func BenchmarkSchedulerChange(b *testing.B) {
	for _, by := range service.Schedulers()[:3] {
		for _, endpoints := range []int{3, 10, 30, 100} {
			c, ruleset := testConn(b), manyServices(10_000)
			mustApply(b, c, ruleset)
			ruleset.Done()
			versions := [3]*service.Service{}
			for i := range versions {
				versions[i] = pods(20_000, by, ones(endpoints)...)
			}
			last := &versions[1].Ports[0].Endpoints[endpoints-1]
			last.Backend = netip.MustParseAddrPort("10.244.255.255:5353")
			versions[2].Ports[0].Endpoints = versions[2].Ports[0].Endpoints[:endpoints-1]
			for what, other := range map[string]int{"replaced": 1, "scaled": 2} {
				b.Run(fmt.Sprintf("%s/endpoints=%d/%s", by, endpoints, what), func(b *testing.B) {
					elements, before := 0, cpu(b)
					for i := 0; b.Loop(); i++ {
						elements += putVersion(b, c, ruleset, versions[i%2*other])
					}
					b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-us/op")
					b.ReportMetric(float64(elements)/float64(b.N), "elements/op")
				})
			}
		}
	}
}

// cpu returns the CPU time of the process in microseconds, which other work on the machine does not change as
// much as the duration. The kernel's part of a commit is in it.
func cpu(b *testing.B) int64 {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return (u.Utime.Nano() + u.Stime.Nano()) / 1000
}

// putVersion programs a Service and returns how many elements that writes.
func putVersion(b *testing.B, c *Conn, ruleset *rules.Ruleset, svc *service.Service) int {
	b.Helper()
	ruleset.Put(rules.Compile(svc, service.Node{}, ruleset.Slots, rules.MaxShare))
	d := ruleset.Changes()
	if err := c.Apply(d); err != nil {
		b.Fatal(err)
	}
	ruleset.Done()
	return len(d.Add) + len(d.Delete)
}

// BenchmarkRoundRobinServices measures what many Services with rr, each with a chain of its own, cost the
// first sync, and a change of a Service that is not one of them and one that is.
func BenchmarkRoundRobinServices(b *testing.B) {
	for _, by := range []service.Scheduler{service.Random, service.RoundRobin} {
		c, ruleset := testConn(b), manyServices(10_000)
		for i := range 5_000 {
			ruleset.Put(rules.Compile(pods(20_000+i, by, ones(3)...), service.Node{}, ruleset.Slots, rules.MaxShare))
		}
		b.Run(by.String()+"/first", func(b *testing.B) {
			took := int64(0)
			for b.Loop() {
				c, d := testConn(b), rules.Diff(ruleset, rules.Programmed{})
				before := cpu(b)
				if err := c.Apply(d); err != nil {
					b.Fatal(err)
				}
				took += cpu(b) - before
			}
			b.ReportMetric(float64(took)/float64(b.N), "cpu-us/op")
		})
		mustApply(b, c, ruleset)
		ruleset.Done()
		b.Run(by.String()+"/new", func(b *testing.B) { // with a chain that the kernel does not have
			before := cpu(b)
			for i := 0; b.Loop(); i++ {
				svc := pods(40_000, by, 1, 1, 1)
				svc.ClusterIPs[0] = netip.AddrFrom4([4]byte{10, 99, byte(i >> 8), byte(i)})
				putVersion(b, c, ruleset, svc)
			}
			b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-us/op")
		})
		for name, svc := range map[string][2]*service.Service{
			"another replaced": {pods(30_000, service.Random, 1, 1, 1), pods(30_000, service.Random, 1, 1, 0, 1)},
			"another scaled":   {pods(30_000, service.Random, 1, 1, 1), pods(30_000, service.Random, 1, 1)},
			"replaced":         {pods(20_000, by, 1, 1, 1), pods(20_000, by, 1, 1, 0, 1)},
			"scaled":           {pods(20_000, by, 1, 1, 1), pods(20_000, by, 1, 1)},
			"created, deleted": {pods(31_000, by, 1, 1, 1), nil},
		} {
			b.Run(by.String()+"/"+name, func(b *testing.B) {
				before := cpu(b)
				for i := 0; b.Loop(); i++ {
					if svc[1] == nil && i%2 == 1 {
						ruleset.Remove(svc[0].Name)
						if err := c.Apply(ruleset.Changes()); err != nil {
							b.Fatal(err)
						}
						ruleset.Done()
						continue
					}
					putVersion(b, c, ruleset, svc[i%2])
				}
				b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-us/op")
			})
		}
	}
}

// BenchmarkSchedulerFirstPacket sends the first datagram of a flow through the rules, from a socket of its
// own: "none" is to an address that no Service has.
func BenchmarkSchedulerFirstPacket(b *testing.B) {
	const flows = 20_000
	from := clientList(flows)
	for _, name := range []string{"none", "random", "rr", "mh", "sh"} {
		b.Run(name, func(b *testing.B) {
			n := newSchedulerNode(b)
			if by, err := service.ParseScheduler(name); err == nil {
				n.put(b, pods(1, by, ones(10)...))
			}
			took := int64(0)
			for b.Loop() {
				before := cpu(b)
				n.send(b, from, only(1))
				took += cpu(b) - before
				n.chosen(b)
			}
			b.ReportMetric(float64(took)*1000/float64(b.N)/flows, "cpu-ns/flow")
		})
	}
}
