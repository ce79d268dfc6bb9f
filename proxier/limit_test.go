package proxier

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// productManifest returns a Service and its EndpointSlice with ports, external IPs and endpoints.
func productManifest(ports, externalIPs, endpoints int) string {
	list := func(n int, format string) string {
		var out []string
		for i := range n {
			out = append(out, strings.ReplaceAll(format, "N", fmt.Sprint(i+1)))
		}
		return strings.Join(out, ", ")
	}
	return fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: product, namespace: small}
spec: {clusterIP: 10.96.0.30, externalIPs: [%s], ports: [%s]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: product, namespace: small, labels: {kubernetes.io/service-name: product}}
addressType: IPv4
ports: [%s]
endpoints: [%s]
`, list(externalIPs, "198.18.0.N"), list(ports, "{name: pN, port: N}"), list(ports, "{name: pN, port: N}"),
		list(endpoints, "{addresses: [10.244.9.N]}"))
}

// becomesMetric scrapes the daemon until a series has a value.
func becomesMetric(t *testing.T, series string, want int) {
	t.Helper()
	line, last := fmt.Sprintf("%s %d\n", series, want), ""
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * ms) {
		if response, err := http.Get("http://127.0.0.1:10249/metrics"); err == nil {
			body, err := io.ReadAll(response.Body)
			response.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
			if last = string(body); strings.Contains(last, line) {
				return
			}
		}
		if time.Now().After(deadline) {
			at := max(strings.LastIndex(last, series), 0)
			t.Fatalf("after 10 s: want %s, the page has %.100s", line, last[at:])
		}
	}
}

// TestDaemonBoundsElements gives a running daemon a Service of 5 kB that wants 37,210 elements: it gets those
// of its ClusterIP and as many more as its size admits, an Event and a metric say so, and others work. When
// it wants less, it gets everything.
func TestDaemonBoundsElements(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	l := newLab(t, lab.Options{Here: true})
	serve(t, l, podA)
	d := startDaemon(t, webManifests(t, podA))
	d.write(t, "product.yaml", productManifest(10, 60, 60))
	const frontends, size, listed = 10 * 61, 61, 10 + 1 + 60 + 60
	const admitted = listed * 256 / size
	refused := `nftproxy_frontends_refused{reason="limit"}`
	becomesMetric(t, refused, frontends-admitted)
	eventually(t, l.Node(), true, `10.96.0.30 . tcp . 10 comment "small/product:p10"`)
	checkRows(t, l, lab.Row{From: "pod-b", To: target(t, "tcp 10.96.0.10:80"), By: []string{"pod-a"}})
	want := []string{fmt.Sprintf("product: 198.18.0.60 . tcp . 9 and %d more frontends are not programmed: "+
		"all %d would need %d elements, more than %d for this Service with its %d ports, addresses and endpoints",
		frontends-admitted-1, frontends, frontends*size, listed*256, listed)}
	if got := d.reportedProblems(t, 1); !slices.Equal(got, want) {
		t.Errorf("Events NotProgrammed:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	d.write(t, "product.yaml", productManifest(10, 40, 60))
	becomesMetric(t, refused, 0)
	eventually(t, l.Node(), true, "198.18.0.40 . tcp . 10 ")
}

// TestDaemonReservesPorts claims the daemon's own ports: it still answers on them, and says why a Service
// does not.
func TestDaemonReservesPorts(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	l := newLab(t, lab.Options{Here: true})
	d := startDaemon(t, webManifests(t, podA))
	d.write(t, "thief.yaml", `
apiVersion: v1
kind: Service
metadata: {name: thief, namespace: default}
spec:
  type: NodePort
  clusterIP: 10.96.0.30
  externalIPs: [192.0.2.1]
  ports: [{name: health, port: 10256}, {name: kubelet, port: 81, nodePort: 10250}]
`)
	becomesMetric(t, `nftproxy_frontends_refused{reason="reserved"}`, 2)
	eventually(t, l.Node(), true, `10.96.0.30 . tcp . 10256 comment "default/thief:health"`)
	response, err := http.Get("http://192.0.2.1:10256/livez")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("the daemon's health is %s", response.Status)
	}
	const why = ": is not programmed, because the node needs it for "
	want := []string{
		"thief: 192.0.2.1 . tcp . 10250" + why + "the kubelet",
		"thief: 192.0.2.1 . tcp . 10256" + why + "the health of nftproxy",
	}
	if got := d.reportedProblems(t, len(want)); !slices.Equal(got, want) {
		t.Errorf("Events NotProgrammed:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
