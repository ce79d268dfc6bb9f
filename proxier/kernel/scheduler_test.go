package kernel

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// schedulerNode is a node in a network namespace, from which flows of UDP go to Services. The packets end in
// an interface that throws them away: who is chosen is in connection tracking.
type schedulerNode struct {
	ns      *lab.Namespace
	conn    *Conn
	ruleset *rules.Ruleset
}

func newSchedulerNode(t testing.TB) *schedulerNode {
	t.Helper()
	n := &schedulerNode{ns: lab.TestNamespace(t), ruleset: rules.NewRuleset(
		rules.Config{MasqueradeMark: 1 << 14, Families: service.Families()})}
	n.conn = testDial(t, n.ns, Options{})
	if err := n.ns.Do(addSink); err != nil {
		t.Fatal(err)
	}
	if err := n.conn.Apply(rules.Diff(n.ruleset, rules.Programmed{})); err != nil {
		t.Fatal(err)
	}
	return n
}

// clients is the range whose addresses the node has as its own.
const clients = "10.50.0.0/16"

// addSink sends what goes to Services and pods to an address that is nobody's. It goes through a pair of
// interfaces and is dropped at its end, because the namespace does not forward.
func addSink() error {
	sink := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "sink"}, PeerName: "end"}
	if err := netlink.LinkAdd(sink); err != nil {
		return fmt.Errorf("add sink: %w", err)
	}
	for _, name := range []string{"lo", "end", "sink"} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
	}
	nobody := net.IPv4(169, 254, 1, 1)
	err := netlink.NeighAdd(&netlink.Neigh{LinkIndex: sink.Index, State: netlink.NUD_PERMANENT, IP: nobody,
		HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}})
	for _, to := range []string{"10.96.0.0/16", "10.244.0.0/16"} {
		_, dst, _ := net.ParseCIDR(to)
		err = errors.Join(err, netlink.RouteAdd(&netlink.Route{LinkIndex: sink.Index, Dst: dst, Gw: nobody,
			Flags: int(netlink.FLAG_ONLINK)}))
	}
	_, dst, _ := net.ParseCIDR(clients)
	return errors.Join(err, netlink.RouteAdd(&netlink.Route{LinkIndex: 1, Dst: dst, Type: unix.RTN_LOCAL,
		Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST}))
}

// put programs a Service.
func (n *schedulerNode) put(t testing.TB, svc *service.Service) *rules.Delta {
	t.Helper()
	n.ruleset.Put(rules.Compile(svc, service.Node{}, n.ruleset.Slots, rules.MaxShare))
	d := n.ruleset.Changes()
	if err := n.conn.Apply(d); err != nil {
		t.Fatal(err)
	}
	n.ruleset.Done()
	return d
}

// pods is a Service of UDP with the weights of its endpoints.
func pods(i int, by service.Scheduler, weights ...uint8) *service.Service {
	port := service.Port{Protocol: service.UDP, Port: 53}
	for j, w := range weights {
		addr := netip.AddrFrom4([4]byte{10, 244, byte(i), byte(j + 1)})
		port.Endpoints = append(port.Endpoints, service.Endpoint{Backend: netip.AddrPortFrom(addr, 5353),
			Ready: true, Serving: true, Weight: w, Drained: w == 0})
	}
	return &service.Service{Name: service.Name{Namespace: "default", Name: fmt.Sprint("s", i)},
		ClusterIPs: []netip.Addr{serviceIP(i)}, Scheduler: by, HasScheduler: true, Ports: []service.Port{port}}
}

func serviceIP(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}) }

// ones returns n times the weight 1.
func ones(n int) []uint8 {
	weights := make([]uint8, n)
	for i := range weights {
		weights[i] = 1
	}
	return weights
}

// client returns the address and port of the i-th client: 1,000 addresses with ports from 20000 on.
func client(i int) netip.AddrPort {
	addr := netip.AddrFrom4([4]byte{10, 50, byte(i % 1000 >> 8), byte(i % 1000)})
	return netip.AddrPortFrom(addr, uint16(20_000+i/1000))
}

// send sends a datagram of each client in from to a Service.
func (n *schedulerNode) send(t testing.TB, from []netip.AddrPort, to func(i int) netip.Addr) {
	t.Helper()
	err := n.ns.Do(func() error {
		for i, c := range from {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			err = unix.Bind(fd, &unix.SockaddrInet4{Addr: c.Addr().As4(), Port: int(c.Port())})
			if err == nil {
				err = unix.Sendto(fd, []byte("x"), 0, &unix.SockaddrInet4{Addr: to(i).As4(), Port: 53})
			}
			if unix.Close(fd); err != nil {
				return fmt.Errorf("send from %s: %w", c, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// chosen returns the endpoint of each client at a Service, and forgets the flows.
func (n *schedulerNode) chosen(t testing.TB) map[netip.Addr]map[netip.AddrPort]netip.Addr {
	t.Helper()
	out := map[netip.Addr]map[netip.AddrPort]netip.Addr{}
	err := n.ns.Do(func() error {
		flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
		if err != nil {
			return err
		}
		for _, f := range flows {
			from, _ := netip.AddrFromSlice(f.Forward.SrcIP.To4())
			to, _ := netip.AddrFromSlice(f.Forward.DstIP.To4())
			endpoint, _ := netip.AddrFromSlice(f.Reverse.SrcIP.To4())
			if out[to] == nil {
				out[to] = map[netip.AddrPort]netip.Addr{}
			}
			out[to][netip.AddrPortFrom(from, f.Forward.SrcPort)] = endpoint
		}
		return netlink.ConntrackTableFlush(netlink.ConntrackTable)
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func clientList(n int) []netip.AddrPort {
	var list []netip.AddrPort
	for i := range n {
		list = append(list, client(i))
	}
	return list
}

func only(i int) func(int) netip.Addr { return func(int) netip.Addr { return serviceIP(i) } }

// chiSquare compares how many clients each endpoint of a Service got with what its weight says.
func chiSquare(svc *service.Service, chosen map[netip.AddrPort]netip.Addr) (sum float64, counts []int) {
	of, weights := map[netip.Addr]int{}, 0
	for _, a := range chosen {
		of[a]++
	}
	for _, ep := range svc.Ports[0].Endpoints {
		weights += int(ep.Weight)
	}
	for _, ep := range svc.Ports[0].Endpoints {
		counts = append(counts, of[ep.Backend.Addr()])
		want := float64(len(chosen)) * float64(ep.Weight) / float64(weights)
		if got := float64(of[ep.Backend.Addr()]); want > 0 {
			sum += (got - want) * (got - want) / want
		} else if got > 0 {
			return math.Inf(1), counts
		}
	}
	return sum, counts
}

// Real flows are distributed as the weights say. With five endpoints chance alone makes a chi-square of more
// than 45 in one of 300 million runs; with rr it is 0. A table of hashes is as even as its slots: within 1 in
// 50 of the parts.
func TestSchedulersSpread(t *testing.T) {
	const flows = 10_000
	for _, by := range service.Schedulers() {
		for name, weights := range map[string][]uint8{"even": ones(5), "weights": {1, 2, 0, 3, 4}} {
			n := newSchedulerNode(t)
			svc := pods(1, by, weights...)
			n.put(t, svc)
			from := clientList(flows)
			if by == service.SourceHash { // by address alone
				for i := range from {
					addr := netip.AddrFrom4([4]byte{10, 50, byte(i >> 8), byte(i)})
					from[i] = netip.AddrPortFrom(addr, 20_000)
				}
			}
			n.send(t, from, only(1))
			chosen := n.chosen(t)[serviceIP(1)]
			if len(chosen) != flows {
				t.Fatalf("%s, %s: %d flows reached an endpoint, want %d", by, name, len(chosen), flows)
			}
			got, counts := chiSquare(svc, chosen)
			t.Logf("%s, %s: %v, chi-square %.2f", by, name, counts, got)
			most := 45.0
			switch {
			case by == service.RoundRobin:
				most = 0
			case by.Hashes():
				most += flows / 50 / 50
			}
			if got > most {
				t.Errorf("%s, %s: chi-square %.1f of %v, want at most %.1f", by, name, got, counts, most)
			}
		}
	}
}

// Two Services with rr that get connections alternately each take all of their endpoints in turn. With one
// chain for both, each would always meet the same ones.
func TestRoundRobinOfAlternatingServices(t *testing.T) {
	n := newSchedulerNode(t)
	n.put(t, pods(1, service.RoundRobin, ones(2)...))
	n.put(t, pods(2, service.RoundRobin, ones(2)...))
	n.send(t, clientList(1000), func(i int) netip.Addr { return serviceIP(1 + i%2) })
	chosen := n.chosen(t)
	for i := 1; i <= 2; i++ {
		if _, counts := chiSquare(pods(i, 0, ones(2)...), chosen[serviceIP(i)]); fmt.Sprint(counts) != "[250 250]" {
			t.Errorf("Service %d: its endpoints got %v of 500 connections", i, counts)
		}
	}
}

// Two nodes choose the same endpoint for each client, and after one of ten endpoints has gone, at most 2/10
// of the clients have another one. The transaction carries the slots that changed.
func TestMaglevOfTwoNodes(t *testing.T) {
	const flows, endpoints = 10_000, 10
	for _, by := range []service.Scheduler{service.Maglev, service.SourceHash} {
		a, b := newSchedulerNode(t), newSchedulerNode(t)
		ask := func(n *schedulerNode) map[netip.AddrPort]netip.Addr {
			n.send(t, clientList(flows), only(1))
			return n.chosen(t)[serviceIP(1)]
		}
		all, fewer := pods(1, by, ones(endpoints)...), pods(1, by, ones(endpoints)...)
		fewer.Ports[0].Endpoints[3].Drained = true
		a.put(t, all)
		b.put(t, fewer) // a node with another past
		b.put(t, all)
		before := ask(a)
		if moved := differ(before, ask(b)); moved > 0 || len(before) != flows {
			t.Errorf("%s: another node chooses another endpoint for %d of %d clients", by, moved, len(before))
		}
		d := a.put(t, fewer)
		after := ask(a)
		moved := differ(before, after)
		t.Logf("%s: one of %d endpoints gone: %.1f%% of clients moved, %d of 1,021 slots in the transaction",
			by, endpoints, 100*float64(moved)/flows, len(d.Add))
		if moved > 2*flows/endpoints || len(d.Add) > 2*1021/endpoints || len(d.Add) != len(d.Delete) {
			t.Errorf("%s: %d of %d clients moved, %d elements deleted and %d added", by, moved, flows,
				len(d.Delete), len(d.Add))
		}
		a.put(t, all)
		if moved := differ(before, ask(a)); moved > 0 {
			t.Errorf("%s: %d clients have another endpoint when it is back", by, moved)
		}
	}
}

// differ counts the clients with another endpoint.
func differ(before, after map[netip.AddrPort]netip.Addr) (n int) {
	for client, endpoint := range before {
		if after[client] != endpoint {
			n++
		}
	}
	return n
}
