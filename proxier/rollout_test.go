package proxier

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/rules/service"
)

// rollout is a UDP Service on a node in a lab whose endpoints change as in a rolling update. pod-b is the
// client.
type rollout struct {
	*node
	lab *lab.Lab
}

func newRollout(t testing.TB) *rollout {
	t.Helper()
	l := newLab(t, lab.Options{})
	dir := t.TempDir()
	(&daemon{dir: dir}).write(t, "node.yaml", nodeManifest)
	r := &rollout{newNode(t, "", dir, l.Node()), l}
	r.load(t, dir)
	r.Apply(flowService(func(s *corev1.Service) { s.Spec.Ports = s.Spec.Ports[:1] }))
	return r
}

// endpoints programs the endpoints, as flowSlice names them.
func (r *rollout) endpoints(t testing.TB, endpoints ...string) {
	t.Helper()
	slice := flowSlice(service.IPv4, "1", 8080, endpoints...)
	slice.Ports = slice.Ports[:1]
	if err := r.lab.ServeEndpoints([]*discoveryv1.EndpointSlice{slice}); err != nil {
		t.Fatal(err)
	}
	r.Apply(slice)
	r.node.sync(t)
}

// exit ends the process of a pod, while its namespace stays.
func (r *rollout) exit(t testing.TB, pod string) {
	t.Helper()
	addr := map[string]string{"pod-a": podA, "pod-c": podC, "pod-d": podD}[pod]
	if err := r.lab.Stop(netip.AddrPortFrom(netip.MustParseAddr(addr), 8080), "udp"); err != nil {
		t.Fatal(err)
	}
}

// ask sends a datagram from a new socket of the client with a source port, and waits for the answer.
func (r *rollout) ask(port int) (answer string, err error) {
	to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.96.0.10:5060"))
	var conn *net.UDPConn
	err = r.lab.Namespace("pod-b").Do(func() (err error) {
		conn, err = net.DialUDP("udp", &net.UDPAddr{Port: port}, to)
		return err
	})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return "", err
	}
	if _, err := conn.Write([]byte("?")); err != nil {
		return "", err
	}
	buf := make([]byte, 64)
	n, err := conn.Read(buf)
	return string(buf[:n]), err
}

// TestTerminatingEndpoint lets clients ask once each, with new sockets, before an endpoint terminates, and
// again from the same ports when its process has ended and the API does not say so yet: no datagram is lost.
// A session, which goes on, keeps its endpoint as long as that serves.
func TestTerminatingEndpoint(t *testing.T) {
	const first, clients = 20000, 100
	t.Parallel()
	r := newRollout(t)
	r.endpoints(t, "pod-a RS")
	session, err := r.lab.Open("pod-b", "udp", netip.MustParseAddrPort("10.96.0.10:5060"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { session.Close() })
	goOn := func() {
		t.Helper()
		for range 5 {
			if got := session.Ask(); got.By != "pod-a" {
				t.Errorf("the session is answered by %q (%s), want pod-a", got.By, got.Outcome)
			}
			time.Sleep(time.Second)
		}
	}
	for i := range clients {
		if _, err := r.ask(first + i); err != nil {
			t.Fatal(err)
		}
	}
	goOn()
	for i := clients; i < 2*clients; i++ { // just before
		if _, err := r.ask(first + i); err != nil {
			t.Fatal(err)
		}
	}
	r.endpoints(t, "pod-a ST", "pod-c RS")
	for i := 2 * clients; i < 3*clients; i++ {
		if got, err := r.ask(first + i); err != nil || got[:5] != "pod-c" {
			t.Fatalf("a new client is answered by %q, error %v; want pod-c", got, err)
		}
	}
	goOn()
	r.exit(t, "pod-a")
	lost := 0
	for i := range 3 * clients {
		if _, err := r.ask(first + i); err != nil {
			lost++
		}
	}
	if lost > 0 {
		t.Errorf("%d of %d datagrams from new sockets were lost", lost, 3*clients)
	}
}

// BenchmarkRollout replaces one of two endpoints in each iteration: it terminates, serves 5 s longer, ends,
// and is removed 1 s later. A client asks 200 times per second from new sockets with random source ports.
// The result is the number of datagrams that are lost of 10,000. "kept" keeps all flows to endpoints that
// terminate while they serve, as kube-proxy does. With 100 ports, each is in use as often as in a session.
//
//	go test ./proxier -run '^$' -bench Rollout -benchtime 15x
func BenchmarkRollout(b *testing.B) {
	for _, ports := range []int{28_000, 100} {
		for _, kept := range []bool{true, false} {
			b.Run(fmt.Sprintf("ports=%d/kept=%t", ports, kept), func(b *testing.B) {
				r := newRollout(b)
				if kept {
					clean := r.reconciler.deleteFlows
					r.reconciler.deleteFlows = func(ctx context.Context, f service.Family,
						stale []service.StaleFlows) (
						int, []service.Frontend, error) {
						for i := range stale {
							stale[i].Draining = nil
						}
						return clean(ctx, f, stale)
					}
				}
				measureRollout(b, r, ports)
			})
		}
	}
}

func measureRollout(b *testing.B, r *rollout, ports int) {
	const drain, lag, interval, warmUp = 5 * time.Second, time.Second, 5 * ms, 40 * time.Second
	out, stays, next := "pod-a", "pod-c", "pod-d"
	r.endpoints(b, out+" RS", stays+" RS")
	var mu sync.Mutex
	var running sync.WaitGroup
	sent, lost := 0, 0
	stop := make(chan struct{})
	running.Go(func() {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-stop:
				return
			case <-ticker.C:
			}
			running.Go(func() {
				_, err := r.ask(30000 + rand.IntN(ports))
				if errors.Is(err, unix.EADDRINUSE) {
					return // the last datagram from this port is still on its way
				}
				mu.Lock()
				defer mu.Unlock()
				sent++
				if err != nil {
					lost++
				}
			})
		}
	})
	time.Sleep(warmUp)
	for b.Loop() {
		r.endpoints(b, out+" RS", stays+" RS", next+" RS")
		time.Sleep(drain / 10)
		r.endpoints(b, out+" ST", stays+" RS", next+" RS")
		time.Sleep(drain)
		r.exit(b, out)
		time.Sleep(lag)
		r.Apply(flowSlice(service.IPv4, "1", 8080, stays+" RS", next+" RS"))
		r.node.sync(b)
		out, stays, next = stays, next, out
	}
	close(stop)
	running.Wait()
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(sent), "datagrams")
	b.ReportMetric(10_000*float64(lost)/float64(sent), "lost/10,000")
}
