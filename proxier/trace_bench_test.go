package proxier

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/proxier/trace"
	"github.com/nftproxy/nftproxy/rules/service"
)

// BenchmarkBesideTrace measures the CPU time of commits and packets alone, beside `nftproxy explain --live`,
// and beside a program that listens for changes of the ruleset, as nft monitor does: a change of one endpoint
// and of a thousand among 10,000 Services, a commit of another program, and a datagram that is not traced.
// The three take turns, and the metrics are medians: a busy machine disturbs all of them alike.
func BenchmarkBesideTrace(b *testing.B) {
	n := newBusyNode(b, 10_000, 0, kernel.Options{})
	n.sync(b)
	if _, err := n.ns.Nft("table inet busy { set s { type ipv4_addr; }; }"); err != nil {
		b.Fatal(err)
	}
	foreign := dial(b, n.ns, kernel.Options{})
	send := datagrams(b, n.ns)
	version := 0
	replace := func(services int) func() error {
		return func() error {
			version++
			replaceEndpoints(n.Proxier, services, version%2)
			return n.reconciler.sync(b.Context())
		}
	}
	for _, work := range []struct {
		name string
		n    int // in a turn; even, so that the set is as before
		do   func(i int) error
	}{
		{"endpoints=1", 200, func(int) error { return replace(1)() }},
		{"endpoints=1000", 2, func(int) error { return replace(1_000)() }},
		{"foreign", 1_000, func(i int) error { return foreign.Commit(oneElement(i%2 == 0)) }},
		{"datagram", 10_000, func(int) error { return send() }},
	} {
		b.Run(work.name, func(b *testing.B) {
			took := map[string][]float64{}
			for b.Loop() {
				for _, beside := range []string{"nothing", "live", "monitor"} {
					err := n.ns.Do(func() error {
						stop, err := startBeside(beside)
						if err != nil {
							return err
						}
						defer stop()
						before := threadTime()
						for i := range work.n {
							if err := work.do(i); err != nil {
								return err
							}
						}
						took[beside] = append(took[beside], float64(threadTime()-before)/float64(work.n))
						return nil
					})
					if err != nil {
						b.Fatal(err)
					}
				}
			}
			for beside, all := range took {
				slices.Sort(all)
				b.ReportMetric(all[len(all)/2], "ns/"+beside)
			}
			b.ReportMetric(0, "ns/op") // a turn of all three says nothing
		})
	}
}

// threadTime returns the CPU time of the calling thread.
func threadTime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) // every kernel has it
	return time.Duration(t.Nano())
}

// startBeside traces packets, or listens for changes of the ruleset, in the calling thread's namespace.
func startBeside(what string) (stop func(), err error) {
	switch what {
	case "live":
		to := service.Frontend{Addr: netip.MustParseAddr("10.96.0.0"), Protocol: service.TCP, Port: 80}
		t, err := trace.Start(trace.Selection{To: to, For: time.Hour})
		return func() { _ = t.Close() }, err
	case "monitor":
		// What is not read is lost, without another cost.
		l, err := netlink.Listen(unix.NFNLGRP_NFTABLES)
		return func() { _ = l.Close() }, err
	}
	return func() {}, nil
}

// replaceEndpoints gives the first n Services of applyServices another endpoint.
func replaceEndpoints(p *Proxier, n, version int) {
	port, protocol, yes := int32(8080), corev1.ProtocolTCP, true
	for i := range n {
		slice := &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4,
			Ports: []discoveryv1.EndpointPort{{Port: &port, Protocol: &protocol}}}
		slice.ObjectMeta = metav1.ObjectMeta{Namespace: "many", Name: fmt.Sprintf("s%d", i)}
		slice.Labels = map[string]string{discoveryv1.LabelServiceName: slice.Name}
		for j := range 3 {
			pod := netip.AddrFrom4([4]byte{10, byte(128 + j), byte(i >> 8), byte(i)})
			if j == 0 {
				pod = netip.AddrFrom4([4]byte{10, byte(200 + version), byte(i >> 8), byte(i)})
			}
			slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{pod.String()},
				Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes}})
		}
		p.Apply(slice)
	}
}

// datagrams returns a function that sends a datagram within the namespace, through the hooks output and
// prerouting. What does not fit into the buffer of the receiver is dropped behind them.
func datagrams(b *testing.B, ns *lab.Namespace) (send func() error) {
	var server, client *net.UDPConn
	err := ns.Do(func() (err error) {
		loopback := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}
		if server, err = net.ListenUDP("udp4", loopback); err != nil {
			return err
		}
		client, err = net.DialUDP("udp4", nil, server.LocalAddr().(*net.UDPAddr))
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = server.Close(); _ = client.Close() })
	return func() error {
		_, err := client.Write([]byte{0})
		return err
	}
}
