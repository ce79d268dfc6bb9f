package proxier

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/configtest"
	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/desired"
	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/rules/service"
)

// sums returns how many connections each port got, as of now.
func (n *node) sums(t testing.TB) map[string]uint64 {
	t.Helper()
	if err := n.connections.update(); err != nil {
		t.Fatal(err)
	}
	n.connections.tried = time.Now()
	sums, err := n.connections.sums()
	if err != nil {
		t.Fatal(err)
	}
	return maps.Collect(sums)
}

// packets returns the sum of the counters of a map of the table ip nftproxy, as nft lists them, and how many
// elements have one.
func packets(t *testing.T, ns *lab.Namespace, set string) (sum uint64, counters int) {
	t.Helper()
	var listing struct {
		Nftables []struct {
			Map struct {
				Elem [][]struct {
					Elem struct{ Counter *struct{ Packets uint64 } }
				}
			}
		}
	}
	out := nftIn(t, ns, "", "-j", "list", "map", "ip", "nftproxy", set)
	// The data of an element is not an object, unlike its key.
	decoder := json.NewDecoder(strings.NewReader(out))
	_ = decoder.Decode(&listing)
	for _, object := range listing.Nftables {
		for _, e := range object.Map.Elem {
			if c := e[0].Elem.Counter; c != nil {
				sum, counters = sum+c.Packets, counters+1
			}
		}
	}
	return sum, counters
}

const countedServices = `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  type: NodePort
  clusterIP: 10.96.0.10
  ports: [{name: http, port: 80, nodePort: 30080, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: dns, namespace: default}
spec:
  clusterIP: 10.96.0.11
  ports: [{port: 53, targetPort: 8080, protocol: UDP}]
---
apiVersion: v1
kind: Service
metadata: {name: sticky, namespace: default}
spec:
  clusterIP: 10.96.0.12
  sessionAffinity: ClientIP
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: none, namespace: default}
spec:
  clusterIP: 10.96.0.13
  ports: [{port: 80}]
`

// newCounted returns a node in a lab with Services, each with endpoints pod-a and pod-c except the last one.
func newCounted(t testing.TB, flags string) (*node, *lab.Lab) {
	t.Helper()
	d := &daemon{dir: t.TempDir()}
	d.write(t, "node.yaml", nodeManifest)
	d.write(t, "services.yaml", countedServices)
	for _, name := range []string{"web", "dns", "sticky"} {
		slice := strings.Replace(endpointsManifest(name, podA, podC), "[{port: 8080}]",
			map[string]string{"web": "[{name: http, port: 8080}]", "dns": "[{port: 8080, protocol: UDP}]"}[name], 1)
		if name == "sticky" {
			slice = endpointsManifest(name, podA, podC)
		}
		d.write(t, name+"-endpoints.yaml", slice)
	}
	conf := t.TempDir()
	(&daemon{dir: conf}).write(t, "flags", "--cluster-cidr=10.244.0.0/16 "+flags)
	l := newLab(t, lab.Options{})
	n := newNode(t, conf, d.dir, l.Node())
	if err := l.ServeEndpoints(n.load(t, d.dir)); err != nil {
		t.Fatal(err)
	}
	n.sync(t)
	return n, l
}

// TestConnectionsAreCounted makes connections of each kind. Each counts once for its Service and once for an
// endpoint, whatever the frontend and however many packets follow.
func TestConnectionsAreCounted(t *testing.T) {
	t.Parallel()
	n, l := newCounted(t, "")
	request := func(times int, from, to string, ok bool) {
		t.Helper()
		for range times {
			target := target(t, to)
			if r := l.Request(from, target.Proto, target.Addr); (r.By != "") != ok {
				t.Fatalf("%s to %s: %+v", from, to, r)
			}
		}
	}
	request(7, "pod-b", "tcp 10.96.0.10:80", true)
	request(5, "client", "tcp 192.0.2.1:30080", true)
	request(3, "pod-b", "udp 10.96.0.11:53", true)
	request(4, "pod-b", "tcp 10.96.0.12:80", true)
	request(2, "pod-b", "tcp 10.96.0.13:80", false)
	flow, err := l.Open("pod-b", "udp", netip.MustParseAddrPort("10.96.0.11:53"))
	if err != nil {
		t.Fatal(err)
	}
	defer flow.Close()
	for range 20 {
		if r := flow.Ask(); r.By == "" {
			t.Fatalf("flow: %+v", r)
		}
	}
	want := map[string]uint64{"default/web:http": 12, "default/dns": 4, "default/sticky": 4, "default/none": 2}
	if diff := cmp.Diff(want, n.sums(t)); diff != "" {
		t.Errorf("connections (-want +got):\n%s", diff)
	}
	for set, want := range map[string]uint64{"services": 22, "endpoints": 16, "sticky-backends": 4} {
		if got, counters := packets(t, n.ns, set); got != want || counters == 0 {
			t.Errorf("%s: %d counters with the sum %d, want %d", set, counters, got, want)
		}
	}
	var text strings.Builder
	known := n.reconciler.builder.Ruleset().Chains(service.IPv4)
	if err := n.conn.WriteTable(&text, service.IPv4, known); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text.String(), "# connections: 7\n\t\t\t10.96.0.10 . tcp . 80 comment ") {
		t.Errorf("no 7 connections in the table as text:\n%s", text.String())
	}
}

// TestConnectionsOfReplacedFrontends scales a Service 100 times under load, while the counters are read all
// the time: each connection counts once.
func TestConnectionsOfReplacedFrontends(t *testing.T) {
	t.Parallel()
	n, l := newCounted(t, "")
	load := l.Steady(t.Context(), "pod-b", "tcp", netip.MustParseAddrPort("10.96.0.10:80"), time.Millisecond)
	stop, stopped := make(chan struct{}), make(chan error)
	reads := 0
	go func() {
		var err error
		for err == nil {
			select {
			case <-stop:
				stopped <- err
				return
			default:
				err = n.connections.update()
				reads++
			}
		}
		stopped <- err
	}()
	for i := range 100 {
		pods := []string{podA, podC}[:1+i%2]
		d := &daemon{dir: t.TempDir()}
		d.write(t, "web-endpoints.yaml", strings.Replace(endpointsManifest("web", pods...),
			"[{port: 8080}]", "[{name: http, port: 8080}]", 1))
		n.load(t, d.dir)
		n.sync(t)
		time.Sleep(10 * time.Millisecond)
	}
	r := load.Stop()
	close(stop)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	sums := n.sums(t)
	if got := sums["default/web:http"]; got != uint64(r.Sent) || r.Sent < 500 || r.Lost() > 0 || reads < 10 {
		t.Errorf("%d connections counted of %s, in %d reads", got, r, reads)
	}
	if now, _ := packets(t, n.ns, "services"); now >= uint64(r.Sent) {
		t.Errorf("the kernel has all %d connections: nothing was replaced", now)
	}
}

// restarted is a new process with other flags that continues on the node, with the objects in dir.
func (n *node) restarted(t *testing.T, dir, flags string) *node {
	t.Helper()
	conf := t.TempDir()
	(&daemon{dir: conf}).write(t, "flags", "--cluster-cidr=10.244.0.0/16 "+flags)
	again := newNode(t, conf, dir, n.ns)
	again.load(t, dir)
	again.sync(t)
	return again
}

// TestCountersComeAndGo changes what is counted under load, in processes one after the other: no connection
// fails, clients with session affinity keep their endpoint, and a restart without a change writes nothing.
func TestCountersComeAndGo(t *testing.T) {
	t.Parallel()
	n, l := newCounted(t, "--connection-counters=off")
	sticky, web := target(t, "tcp 10.96.0.12:80"), netip.MustParseAddrPort("10.96.0.10:80")
	by := l.Request("pod-b", sticky.Proto, sticky.Addr).By
	load := l.Steady(t.Context(), "pod-b", "tcp", web, time.Millisecond)
	for _, value := range []string{"services", "endpoints", "auto", "services", "off"} {
		n = n.restarted(t, n.config.Source, "--connection-counters="+value)
		before := n.generation(t)
		n = n.restarted(t, n.config.Source, "--connection-counters="+value)
		if after := n.generation(t); after != before {
			t.Errorf("%s: a restart moved the generation from %d to %d", value, before, after)
		}
		_, services := packets(t, n.ns, "services")
		_, endpoints := packets(t, n.ns, "endpoints")
		_, stickyBackends := packets(t, n.ns, "sticky-backends")
		each := value == "endpoints" || value == "auto"
		if (services > 0) == (value == "off") || each != (endpoints > 0 && stickyBackends > 0) {
			t.Errorf("%s: counters of %d services and %d, %d endpoints", value, services, endpoints, stickyBackends)
		}
		checkRows(t, l, lab.Row{From: "pod-b", To: sticky, By: []string{by}, Requests: 10})
	}
	if r := load.Stop(); r.Lost() > 0 || r.Sent < 50 {
		t.Errorf("requests during the changes: %s", r)
	}
}

// TestEndpointsOutgrowCounters adds endpoints until their counters would take too much memory. They lose
// their counters in the transaction that adds the endpoints; those of Services stay.
func TestEndpointsOutgrowCounters(t *testing.T) {
	t.Parallel()
	n, _ := newCounted(t, "")
	env := n.reconciler.env
	n.reconciler.env = func() (desired.Environment, error) {
		e, err := env()
		e.Config.Counters.Endpoints = 8 // as on a node with many CPUs
		return e, err
	}
	n.reconciler.require(environment)
	n.sync(t)
	if _, counters := packets(t, n.ns, "endpoints"); counters == 0 {
		t.Error("8 endpoints have no counters")
	}
	before := n.generation(t)
	d := &daemon{dir: t.TempDir()}
	d.write(t, "dns-endpoints.yaml", strings.Replace(endpointsManifest("dns", podA, podB, podC), "{port: 8080}",
		"{port: 8080, protocol: UDP}", 1))
	n.load(t, d.dir)
	n.sync(t)
	_, endpoints := packets(t, n.ns, "endpoints")
	_, services := packets(t, n.ns, "services")
	if endpoints > 0 || services == 0 || n.generation(t) != before+1 {
		t.Errorf("9 endpoints: %d have counters, as have %d frontends, after %d transactions",
			endpoints, services, n.generation(t)-before)
	}
}

// connectionSeries returns the series of the metric that a daemon in this namespace serves, without its name.
func connectionSeries(t *testing.T) []string {
	t.Helper()
	response, err := http.Get("http://127.0.0.1:10249/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var series []string
	for line := range strings.Lines(string(page)) {
		if labels, found := strings.CutPrefix(line, "nftproxy_service_connections_total"); found {
			series = append(series, strings.TrimSpace(labels))
		}
	}
	return series
}

// TestDaemonServesConnections reads the metric of a running daemon: after a scrape, when the Service is
// scaled before the next one, when it is gone, and with the counters turned off.
func TestDaemonServesConnections(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	l := newLab(t, lab.Options{Here: true})
	serve(t, l, podA, podB)
	dir := webManifests(t, podA)
	d := startDaemon(t, dir)
	eventually(t, l.Node(), true, "goto cluster-1")
	becomes := func(want ...string) {
		t.Helper()
		deadline := time.Now().Add(2*readEvery + 5*time.Second)
		for {
			got := connectionSeries(t)
			if slices.Equal(got, want) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("series %q, want %q", got, want)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	row := lab.Row{From: "pod-b", To: target(t, "tcp 10.96.0.10:80"), Requests: 10}
	becomes()
	row.By = []string{"pod-a"}
	checkRows(t, l, row)
	becomes(`{namespace="default",port="",service="web"} 10`)
	checkRows(t, l, row)
	d.write(t, "web-endpoints.yaml", endpointsManifest("web", podA, podB))
	eventually(t, l.Node(), true, "goto cluster-2")
	row.By = []string{"pod-a", "pod-b"}
	checkRows(t, l, row)
	becomes(`{namespace="default",port="",service="web"} 30`)
	if err := os.Remove(filepath.Join(dir, "web.yaml")); err != nil {
		t.Fatal(err)
	}
	becomes()
	d.stop()
	d.write(t, "web.yaml", webManifest)
	startDaemon(t, dir, "--connection-counters=off")
	eventually(t, l.Node(), true, "default/web")
	checkRows(t, l, row)
	becomes()
	if _, counters := packets(t, l.Node(), "services"); counters > 0 {
		t.Errorf("%d frontends have counters", counters)
	}
}

// TestKernelWithoutCounters is about a kernel that lacks only counters: nftproxy works and does not ask for
// them.
func TestKernelWithoutCounters(t *testing.T) {
	lacks := []kernel.Missing{{Family: service.IPv4, Feature: "counter in map services",
		Needs: "CONFIG_NFT_COUNTER", Err: unix.ENOENT, Optional: true}}
	for _, missing := range [][]kernel.Missing{nil, lacks} {
		f, err := usable(missing)
		if err != nil || len(f.families) != 2 {
			t.Fatalf("without %v: %+v, %v", missing, f, err)
		}
		p, err := New(Options{Config: configtest.Case(t, "", t.TempDir())})
		if err != nil {
			t.Fatal(err)
		}
		p.use(f)
		e, err := p.nodeEnvironment()
		if err != nil {
			t.Fatal(err)
		}
		if got, want := e.Config.Counters.Services, len(missing) == 0; got != want {
			t.Errorf("without %v: counters %t, want %t", missing, got, want)
		}
	}
}
