package proxier

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/nftproxy/nftproxy/internal/configtest"
	"github.com/nftproxy/nftproxy/internal/fakekernel"
	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/source"
)

// registryManifest is a Service of both families with nodePorts for TCP and UDP.
const registryManifest = `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  type: NodePort
  clusterIPs: [10.96.0.10, "fd00:10:96::10"]
  ports: [{name: tcp, port: 80, nodePort: 30080}, {name: udp, protocol: UDP, port: 80, nodePort: 30080}]
`

// registryEndpoints returns the EndpointSlices of the Service for one pod address of each family.
func registryEndpoints(pods ...string) string {
	var b strings.Builder
	for i, pod := range pods {
		kind, node := "IPv4", "node-b"
		if strings.Contains(pod, ":") {
			kind = "IPv6"
		}
		if strings.HasPrefix(pod, "10.244.1.") || strings.HasPrefix(pod, "fd00:10:244:1:") {
			node = "node-a"
		}
		fmt.Fprintf(&b, `---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-%d, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: %s
ports: [{name: tcp, port: 8080}, {name: udp, protocol: UDP, port: 8080}]
endpoints: [{addresses: ["%s"], nodeName: %s}]
`, i, kind, pod, node)
	}
	return b.String()
}

// loopbackRows returns the same row for the nodePort on both loopback addresses, requested on the node.
func loopbackRows(t *testing.T, row lab.Row) []lab.Row {
	t.Helper()
	row.From = "host-pod"
	v4, v6 := row, row
	v4.To, v6.To = target(t, "tcp 127.0.0.1:30080"), target(t, "tcp [::1]:30080")
	return []lab.Row{v4, v6}
}

// eventuallyRows waits until all requests of the rows end as they say.
func eventuallyRows(t *testing.T, l *lab.Lab, rows ...lab.Row) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for _, row := range rows {
		for {
			_, err := l.Check(t.Context(), row)
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("after 10 s: %v", err)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// eventuallyHealthy waits until the daemon in this namespace has programmed everything once.
func eventuallyHealthy(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		answer, err := http.Get("http://127.0.0.1:10256/healthz")
		if err == nil {
			if answer.Body.Close(); answer.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("after 10 s: /healthz does not return 200, error %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// scrapeSeries returns the value of a series on the metrics page of the daemon in this namespace.
func scrapeSeries(t *testing.T, series string) string {
	t.Helper()
	answer, err := http.Get("http://127.0.0.1:10249/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	page, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(page)) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return "missing"
}

func checkSeries(t *testing.T, series, want string) {
	t.Helper()
	if got := scrapeSeries(t, series); got != want {
		t.Errorf("%s is %s, want %s", series, got, want)
	}
}

const (
	localhostListeners = "kubeproxy_nftables_localhost_nodeport_listeners"
	localhostFailures  = "kubeproxy_nftables_localhost_nodeport_listener_creation_failures_total"
	inIPv4, inIPv6     = `{ip_family="IPv4"}`, `{ip_family="IPv6"}`
	podA6, podC6       = "fd00:10:244:1::11", "fd00:10:244:2::11"
)

// newRegistry returns a lab whose pod-a serves the registry, and the objects of it.
func newRegistry(t *testing.T) (*lab.Lab, *daemon) {
	t.Helper()
	l := newLab(t, lab.Options{Here: true})
	serve(t, l, podA, podA6)
	dir := &daemon{dir: t.TempDir()}
	dir.write(t, "node.yaml", nodeManifest)
	dir.write(t, "web.yaml", registryManifest)
	dir.write(t, "endpoints.yaml", registryEndpoints(podA, podA6))
	return l, dir
}

// TestLocalhostNodePorts connects from the node to a nodePort on 127.0.0.1 and ::1 while endpoints, the
// traffic policy and the Service change.
func TestLocalhostNodePorts(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	l := newLab(t, lab.Options{Here: true})
	serve(t, l, podA, podC, podA6, podC6)
	dir := &daemon{dir: t.TempDir()}
	dir.write(t, "node.yaml", nodeManifest)
	dir.write(t, "web.yaml", registryManifest)
	d := startDaemon(t, dir.dir, "--nodeport-addresses=primary,localhost")
	eventuallyHealthy(t)
	checkRows(t, l, loopbackRows(t, lab.Row{Refused: true})...)

	d.write(t, "endpoints.yaml", registryEndpoints(podA, podC, podA6, podC6))
	eventuallyRows(t, l, loopbackRows(t, lab.Row{By: []string{"pod-a", "pod-c"}})...)
	checkRows(t, l, lab.Row{From: "client", To: target(t, "tcp 192.0.2.1:30080"),
		By: []string{"pod-a", "pod-c"}})
	for _, to := range []string{"127.0.0.1:30080", "[::1]:30080"} {
		if r := l.Request("host-pod", "udp", netip.MustParseAddrPort(to)); r.Outcome != lab.Refused {
			t.Errorf("UDP to %s is %s, want refused", to, r.Outcome)
		}
	}
	checkSeries(t, localhostListeners+inIPv4, "1")
	checkSeries(t, localhostListeners+inIPv6, "1")
	checkSeries(t, localhostFailures+inIPv4, "0")
	checkSeries(t, localhostFailures+inIPv6, "0")

	d.write(t, "endpoints.yaml", registryEndpoints(podC, podC6))
	eventuallyRows(t, l, loopbackRows(t, lab.Row{By: []string{"pod-c"}, Requests: 20})...)

	// Policy Local: the endpoints are on another node.
	d.write(t, "web.yaml", registryManifest+"  externalTrafficPolicy: Local\n")
	eventuallyRows(t, l, loopbackRows(t, lab.Row{Refused: true})...)
	checkSeries(t, localhostListeners+inIPv4, "0")
	d.write(t, "endpoints.yaml", registryEndpoints(podA, podC, podA6, podC6))
	eventuallyRows(t, l, loopbackRows(t, lab.Row{By: []string{"pod-a"}, Requests: 20})...)

	if err := os.Remove(filepath.Join(d.dir, "web.yaml")); err != nil {
		t.Fatal(err)
	}
	eventuallyRows(t, l, loopbackRows(t, lab.Row{Refused: true})...)
}

// TestLocalhostAfterRestart starts the daemon again and again. It serves loopback addresses whenever
// nodePortAddresses has them, also if the daemon before did not (kubernetes#142183), and writes no rules.
func TestLocalhostAfterRestart(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	l, dir := newRegistry(t)
	for _, start := range []struct {
		addresses, gates string
		v4, v6           bool
	}{
		{"primary", "", false, false},
		{"primary,localhost", "", true, true},
		{"primary,localhost", "", true, true},
		{"primary,localhost", "KubeProxyNFTablesLocalhostNodePorts=false", false, false},
		{"localhost", "KubeProxyNFTablesLocalhostNodePorts=true", true, true},
		{"all", "", false, false},
		{"all,127.0.0.0/8", "", true, false},
		{"primary,::1/128", "", false, true},
	} {
		d := startDaemon(t, dir.dir, "--nodeport-addresses="+start.addresses, "--feature-gates="+start.gates)
		eventuallyHealthy(t)
		t.Logf("nodePortAddresses %s, gates %q", start.addresses, start.gates)
		for _, at := range []struct {
			addr string
			want bool
		}{{"127.0.0.1:30080", start.v4}, {"[::1]:30080", start.v6}} {
			row := lab.Row{From: "host-pod", To: target(t, "tcp "+at.addr), Refused: true}
			if at.want {
				row.Refused, row.By = false, []string{"pod-a"}
			}
			checkRows(t, l, row)
		}
		d.stop()
		checkRows(t, l, loopbackRows(t, lab.Row{Refused: true})...)
	}
}

// TestLocalhostPortTaken takes the nodePort on a loopback address: the metrics say so, and it is served when
// it is free again, without a change of any object.
func TestLocalhostPortTaken(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	l, dir := newRegistry(t)
	other, err := net.Listen("tcp", "127.0.0.1:30080")
	if err != nil {
		t.Fatal(err)
	}
	startDaemon(t, dir.dir, "--nodeport-addresses=primary,localhost")
	eventuallyHealthy(t)
	rows := loopbackRows(t, lab.Row{By: []string{"pod-a"}})
	checkRows(t, l, rows[1])
	checkSeries(t, localhostListeners+inIPv4, "0")
	checkSeries(t, localhostListeners+inIPv6, "1")
	checkSeries(t, localhostFailures+inIPv6, "0")
	if got := scrapeSeries(t, localhostFailures+inIPv4); got == "0" {
		t.Error("the failure to listen is not counted")
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	eventuallyRows(t, l, rows[0])
	checkSeries(t, localhostListeners+inIPv4, "1")
}

// TestLocalhostEvents counts the Events about a nodePort that is taken on a loopback address, and about two
// Services that claim one.
func TestLocalhostEvents(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	other, err := net.Listen("tcp", "127.0.0.1:30080")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	c := configtest.Parse(t, "--hostname-override=node-a", "--nodeport-addresses=localhost")
	p, r := newStandalone(t, c, fakekernel.New())
	defer p.loopback.Close()
	dir := &daemon{dir: t.TempDir()}
	dir.write(t, "all.yaml", nodeManifest+"---"+registryManifest+registryEndpoints(podA)+"---"+
		strings.NewReplacer("name: web", "name: younger", "96.0.10", "96.0.11", "96::10", "96::11").
			Replace(registryManifest))
	objects, problems, err := source.NewDir(dir.dir).Load()
	if err != nil || len(problems) > 0 {
		t.Fatal(err, problems)
	}
	for _, obj := range objects {
		p.Apply(obj)
	}
	if err := syncWhole(t, r); err != nil {
		t.Fatal(err)
	}
	r.reopenPorts()
	r.reopenPorts()
	close(p.events.queue)
	got := map[string]int{}
	for e := range p.events.queue {
		got[e.Type+" "+e.Regarding.Name+" "+e.Reason+": "+e.Note]++
	}
	for _, want := range []string{
		corev1.EventTypeWarning + " web FailedToStartLocalhostNodePort: nodePort of service default/web on " +
			"127.0.0.1:30080: listen tcp 127.0.0.1:30080: bind: address already in use",
		corev1.EventTypeWarning + " younger FrontendConflict: 127.0.0.1 . tcp . 30080 is taken by Service " +
			"default/web, which is older",
	} {
		if got[want] != 1 {
			t.Errorf("%d times, want once: %s\nEvents: %v", got[want], want, got)
		}
	}
}
