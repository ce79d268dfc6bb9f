package kernel

import (
	"fmt"
	"math"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// manyServices returns the ruleset of n Services with 3 endpoints each, without counters.
func manyServices(n int) *rules.Ruleset { return countedServices(n, rules.Counters{}) }

// countedServices is manyServices with counters.
func countedServices(n int, counters rules.Counters) *rules.Ruleset {
	ruleset := rules.NewRuleset(rules.Config{MasqueradeMark: 1 << 14, Families: service.Families(),
		Counters: counters})
	for i := range n {
		port := service.Port{Protocol: service.TCP, Port: 80}
		for j := range 3 {
			pod := netip.AddrFrom4([4]byte{10, byte(128 + j + 3*(i>>16)), byte(i >> 8), byte(i)})
			port.Endpoints = append(port.Endpoints,
				service.Endpoint{Backend: netip.AddrPortFrom(pod, 8080), Ready: true, Node: "node-b"})
		}
		ruleset.Put(rules.Compile(&service.Service{
			Name:       service.Name{Namespace: "many", Name: fmt.Sprintf("s%d", i)},
			ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(96 + i>>16), byte(i >> 8), byte(i)})},
			Ports:      []service.Port{port},
		}, service.Node{Name: "node-a"}, ruleset.Slots, rules.MaxShare))
	}
	return ruleset
}

// TestManyServices programs 100,000 Services with 3 endpoints in one transaction. Outside the initial user
// namespace a message cannot be as large: there it programs as many as fit.
func TestManyServices(t *testing.T) {
	c := testConn(t)
	program(t, c, manyServices(fitting(t, 100_000)))
}

// fitting returns how many Services fit into a message, at most so many.
func fitting(t *testing.T, most int) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	const unlimited = math.MaxInt32 / 2
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, unlimited) == nil {
		return most
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, unlimited); err != nil {
		t.Fatal(err)
	}
	limit, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	if err != nil {
		t.Fatal(err)
	}
	fits := min(limit/700, most)
	t.Logf("a message may have %d bytes here: %d Services", limit, fits)
	return fits
}

// program applies the ruleset in one transaction.
func program(t *testing.T, c *Conn, ruleset *rules.Ruleset) {
	t.Helper()
	d := rules.Diff(ruleset, rules.Programmed{})
	before, err := c.Generation()
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := c.Apply(d); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d elements in one transaction: %v", len(d.Add), time.Since(start))
	if after, err := c.Generation(); err != nil || after != before+1 {
		t.Errorf("%d transactions (error %v), want 1", after-before, err)
	}
}

// TestReadBack programs 14,000 Services and reads them at once, while the kernel is still resizing the sets:
// dumps miss elements then.
func TestReadBack(t *testing.T) {
	for range 3 {
		c := testConn(t)
		ruleset := manyServices(fitting(t, 14_000))
		program(t, c, ruleset)
		if left := mustDiff(t, c, ruleset); !left.Empty() {
			t.Errorf("%d elements missing, %d unexpected", len(left.Add), len(left.Delete))
		}
	}
}

// TestManyEndpoints programs one sticky Service with 10,000 endpoints, and then removes one of them.
func TestManyEndpoints(t *testing.T) {
	c := testConn(t)
	ruleset := rules.NewRuleset(rules.Config{MasqueradeMark: 1 << 14, Families: service.Families()})
	svc := manyEndpoints(10_000)
	ruleset.Put(rules.Compile(svc, service.Node{}, ruleset.Slots, rules.MaxShare))
	program(t, c, ruleset)
	ruleset.Done()
	svc.Ports[0].Endpoints = svc.Ports[0].Endpoints[1:]
	ruleset.Put(rules.Compile(svc, service.Node{}, ruleset.Slots, rules.MaxShare))
	d := ruleset.Changes()
	// The first goes and the last takes its slot: 3 of slots, 1 of the backend, 2 of the frontend and a new
	// shape.
	if n := len(d.Add) + len(d.Delete); n > 7 {
		t.Errorf("one endpoint less writes %d elements", n)
	}
	if err := c.Apply(d); err != nil {
		t.Fatal(err)
	}
}

// manyEndpoints returns a sticky Service with n endpoints.
func manyEndpoints(n int) *service.Service {
	port := service.Port{Protocol: service.TCP, Port: 80}
	for i := range n {
		pod := netip.AddrFrom4([4]byte{10, 128, byte(i >> 8), byte(i)})
		port.Endpoints = append(port.Endpoints,
			service.Endpoint{Backend: netip.AddrPortFrom(pod, 8080), Ready: true})
	}
	return &service.Service{
		Name: service.Name{Namespace: "many", Name: "endpoints"}, AffinityTimeout: time.Hour,
		ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, 0, 1})}, Ports: []service.Port{port},
	}
}

// counterSettings are those that benchmarks compare, by name.
func counterSettings() map[string]rules.Counters {
	return map[string]rules.Counters{
		"off": {}, "services": {Services: true}, "endpoints": {Services: true, Endpoints: math.MaxInt},
	}
}

// BenchmarkFirstSync programs 10,000 Services with 3 endpoints into an empty kernel: difference, encoding and
// commit.
func BenchmarkFirstSync(b *testing.B) {
	for name, counters := range counterSettings() {
		b.Run("counters="+name, func(b *testing.B) {
			ruleset := countedServices(10_000, counters)
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				c := testConn(b)
				b.StartTimer()
				if err := c.Apply(rules.Diff(ruleset, rules.Programmed{})); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkReadConnections reads the counters of so many Services, as a scrape does.
func BenchmarkReadConnections(b *testing.B) {
	for _, services := range []int{10_000, 50_000} {
		b.Run(fmt.Sprint(services), func(b *testing.B) {
			c, ruleset := testConn(b), countedServices(services, rules.Counters{Services: true})
			if err := c.Apply(rules.Diff(ruleset, rules.Programmed{})); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				n := 0
				count := func(Connections) { n++ }
				if err := ReadConnections(c.Conn, service.Families(), count); err != nil || n != services {
					b.Fatalf("%d counters read: %v", n, err)
				}
			}
		})
	}
}

// BenchmarkOneEndpoint replaces one endpoint of one Service among 1,000, 10,000 and 50,000: compile,
// difference, encoding and commit.
func BenchmarkOneEndpoint(b *testing.B) {
	for _, services := range []int{1_000, 10_000, 50_000} {
		for name, counters := range counterSettings() {
			b.Run(fmt.Sprintf("%d/counters=%s", services, name), func(b *testing.B) {
				benchmarkOneEndpoint(b, countedServices(services, counters))
			})
		}
	}
}

func benchmarkOneEndpoint(b *testing.B, ruleset *rules.Ruleset) {
	c := testConn(b)
	if err := c.Apply(rules.Diff(ruleset, rules.Programmed{})); err != nil {
		b.Fatal(err)
	}
	ruleset.Done()
	svc := manyEndpoints(3)
	svc.AffinityTimeout = 0
	ruleset.Put(rules.Compile(svc, service.Node{}, ruleset.Slots, rules.MaxShare))
	if err := c.Apply(ruleset.Changes()); err != nil {
		b.Fatal(err)
	}
	ruleset.Done()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		pod := netip.AddrFrom4([4]byte{10, 200, byte(i >> 8), byte(i)})
		svc.Ports[0].Endpoints[1].Backend = netip.AddrPortFrom(pod, 8080)
		ruleset.Put(rules.Compile(svc, service.Node{}, ruleset.Slots, rules.MaxShare))
		if err := c.Apply(ruleset.Changes()); err != nil {
			b.Fatal(err)
		}
		ruleset.Done()
	}
}
