package proxier

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/proxier/conntrack"
	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/proxier/status"
	"github.com/nftproxy/nftproxy/rules/service"
)

// BenchmarkStatus asks a node with 50,000 Services for pages: the time is that of a whole page, the memory all
// that is allocated for it, and "reconciler-us" how long a sync waits for it. The counters are read
// once for all pages, as for pages within 5 s: BenchmarkReadConnections has that.
func BenchmarkStatus(b *testing.B) {
	n := newBusyNode(b, 25_000, 0, kernel.Options{})
	n.sync(b) // one transaction for all would exceed the send buffer of a user namespace
	applyServices(n.Proxier, 50_000)
	n.sync(b)
	var waited time.Duration
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case ask := <-n.asked:
				begin := time.Now()
				ask(n.reconciler)
				waited += time.Since(begin)
			case <-stop:
				return
			}
		}
	}()
	b.Run("open connections", func(b *testing.B) { waited = 0; seedOpen(b, n, &waited) })
	pages := status.NewPages(n.Proxier.status, nil)
	for name, target := range map[string]string{"first": "/status", "filter": "/status?q=s4999+80",
		"last": "/status?offset=49950", "rate": "/status?order=rate", "open": "/status?order=open",
		"json": "/status.json?limit=200"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			waited = 0
			if err := n.ns.Do(func() error {
				for b.Loop() {
					w := &rowCounter{header: http.Header{}}
					pages.ServeHTTP(w, httptest.NewRequest("GET", target, nil))
					if w.rows < 11 {
						return fmt.Errorf("the page has %d rows", w.rows)
					}
				}
				return nil
			}); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(waited.Microseconds())/float64(b.N), "reconciler-us")
		})
	}
}

// seedOpen gives each of the 50,000 Services an open connection, and finds the ports that these belong to, as
// happens once for each count.
func seedOpen(b *testing.B, n *node, waited *time.Duration) {
	b.ReportAllocs()
	found := map[conntrack.Path]conntrack.Open{}
	for _, svc := range n.Proxier.state.All(nil) {
		at := service.Frontend{Addr: svc.ClusterIPs[0], Protocol: service.TCP, Port: 80}
		found[conntrack.Path{Frontend: at, Backend: netip.MustParseAddrPort("10.244.1.11:8080")}] =
			conntrack.Open{Connections: 1}
	}
	var ports *openPorts
	for b.Loop() {
		ports = newOpenPorts()
		if err := n.Proxier.addOpen(b.Context(), ports, found); err != nil || len(ports.ports) != 50_000 {
			b.Fatalf("error %v, %d ports", err, len(ports.ports))
		}
	}
	b.ReportMetric(float64(waited.Microseconds())/float64(b.N), "reconciler-us")
	n.Proxier.open.ports, n.Proxier.open.next = ports, time.Now().Add(time.Hour)
}

// rowCounter takes an answer, counts its rows, and keeps nothing.
type rowCounter struct {
	header http.Header
	rows   int
}

func (c *rowCounter) Header() http.Header { return c.header }
func (c *rowCounter) WriteHeader(int)     {}

func (c *rowCounter) Write(part []byte) (int, error) {
	c.rows += bytes.Count(part, []byte("<details")) + bytes.Count(part, []byte(`"target"`))
	return len(part), nil
}

// BenchmarkReadConnections reads the counters of 50,000 frontends, all of which had connections, as happens for
// each step of the histories.
func BenchmarkReadConnections(b *testing.B) {
	n := newBusyNode(b, 25_000, 0, kernel.Options{})
	n.sync(b)
	applyServices(n.Proxier, 50_000)
	n.sync(b)
	for b.Loop() {
		if err := n.ns.Do(n.connections.update); err != nil {
			b.Fatal(err)
		}
	}
}
