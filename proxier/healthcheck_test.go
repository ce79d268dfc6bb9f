package proxier

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// check returns what a load balancer gets from a healthCheckNodePort: status and weight, for example "200 2",
// or "refused" where nothing listens.
func check(t *testing.T, l *lab.Lab, from, addr string) string {
	t.Helper()
	dial := func(_ context.Context, network, addr string) (conn net.Conn, err error) {
		err = l.Namespace(from).Do(func() error {
			conn, err = net.DialTimeout(network, addr, 3*time.Second)
			return err
		})
		return conn, err
	}
	client := http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true},
		Timeout: 5 * time.Second}
	answer, err := client.Get("http://" + addr + "/")
	if errors.Is(err, syscall.ECONNREFUSED) {
		return "refused"
	}
	if err != nil {
		t.Fatalf("%s asks %s: %v", from, addr, err)
	}
	_ = answer.Body.Close()
	return fmt.Sprintf("%d %s", answer.StatusCode, answer.Header.Get("X-Load-Balancing-Endpoint-Weight"))
}

// checkEventually asks until the answer is the wanted one, for 10 s.
func checkEventually(t *testing.T, l *lab.Lab, from, addr, want string) {
	t.Helper()
	got := ""
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if got = check(t, l, from, addr); got == want {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("%s asks %s: %s, want %s", from, addr, got, want)
}

// localManifest returns a Service with a healthCheckNodePort, and an EndpointSlice for each family of its
// ClusterIPs.
func localManifest(name string, port int, clusterIPs []string, endpoints ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `
apiVersion: v1
kind: Service
metadata: {name: %s, namespace: default}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  healthCheckNodePort: %d
  clusterIP: %q
  clusterIPs: ["%s"]
  ports: [{port: 80, nodePort: %d}]
`, name, port, clusterIPs[0], strings.Join(clusterIPs, `", "`), port-1000)
	for _, family := range []string{"IPv4", "IPv6"} {
		fmt.Fprintf(&b, "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"+
			"metadata: {name: %s-%s, namespace: default, labels: {kubernetes.io/service-name: %s}}\n",
			name, strings.ToLower(family), name)
		fmt.Fprintf(&b, "addressType: %s\nports: [{port: 8080}]\nendpoints:\n", family)
		for _, text := range endpoints {
			addr := netip.MustParseAddr(text)
			node := "node-b"
			if strings.HasPrefix(text, "10.244.1.") || strings.HasPrefix(text, "fd00:10:244:1:") {
				node = "node-a"
			}
			if addr.Is4() == (family == "IPv4") {
				fmt.Fprintf(&b, "- {addresses: [%q], nodeName: %s}\n", text, node)
			}
		}
	}
	return b.String()
}

// TestHealthChecksPerFamily asks the health checks of Services as load balancers do, in both families: each
// family has a weight of its own, and a Service is checked in its own families only.
func TestHealthChecksPerFamily(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	l := newLab(t, lab.Options{Here: true})
	d := &daemon{dir: t.TempDir()}
	d.write(t, "node.yaml", nodeManifest)
	dual := []string{"10.96.0.20", "fd00:10:96::20"}
	d.write(t, "six.yaml", localManifest("six", 31001, dual, podC, "fd00:10:244:1::11"))
	d.write(t, "two.yaml", localManifest("two", 31002, []string{"10.96.0.21", "fd00:10:96::21"},
		podA, podB, "fd00:10:244:1::11", "fd00:10:244:1::12"))
	d.write(t, "four.yaml", localManifest("four", 31003, []string{"10.96.0.22"}, podA))
	d.write(t, "only6.yaml", localManifest("only6", 31004, []string{"fd00:10:96::23"}, "fd00:10:244:1::11"))
	startDaemon(t, d.dir)
	for _, want := range []struct{ port, v4, v6 string }{
		{"31001", "503 0", "200 1"},
		{"31002", "200 2", "200 2"},
		{"31003", "200 1", "refused"},
		{"31004", "refused", "200 1"},
	} {
		checkEventually(t, l, "client", "192.0.2.1:"+want.port, want.v4)
		checkEventually(t, l, "client", "[2001:db8::1]:"+want.port, want.v6)
	}
	// One endpoint moves to the other family's side, and the Service loses a family.
	d.write(t, "six.yaml", localManifest("six", 31001, dual, podA, podB, "fd00:10:244:2::11"))
	checkEventually(t, l, "client", "192.0.2.1:31001", "200 2")
	checkEventually(t, l, "client", "[2001:db8::1]:31001", "503 0")
	d.write(t, "six.yaml", localManifest("six", 31001, dual[:1], podA, "fd00:10:244:1::11"))
	checkEventually(t, l, "client", "[2001:db8::1]:31001", "refused")
	checkEventually(t, l, "client", "192.0.2.1:31001", "200 1")
}

// TestNodeWithoutAddressesKeepsServing takes the addresses from the Node object, as when a node is deleted
// and registered anew, and then the object: nodePorts and health checks continue. New addresses take effect.
func TestNodeWithoutAddressesKeepsServing(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	l := newLab(t, lab.Options{Here: true})
	serve(t, l, podA)
	d := &daemon{dir: t.TempDir()}
	d.write(t, "node.yaml", nodeManifest)
	d.write(t, "local.yaml", localManifest("local", 31001, []string{"10.96.0.20"}, podA))
	startDaemon(t, d.dir)
	nodePort := lab.Row{From: "client", To: target(t, "tcp 192.0.2.1:30001"), By: []string{"pod-a"}}
	checkEventually(t, l, "client", "192.0.2.1:31001", "200 1")
	checkRows(t, l, nodePort)
	const empty = "apiVersion: v1\nkind: Node\n" +
		"metadata: {name: node-a, labels: {topology.kubernetes.io/zone: a}}\n"
	for i, node := range []string{empty, "", empty} {
		d.write(t, "node.yaml", node)
		// A later change is programmed, so this one was too.
		late := strings.NewReplacer("web", fmt.Sprint("late-", i), "10.96.0.10", fmt.Sprint("10.96.0.3", i),
			"30080", fmt.Sprint(30080+i))
		d.write(t, "late.yaml", late.Replace(webManifest))
		eventually(t, l.Node(), true, fmt.Sprint("default/late-", i))
		checkRows(t, l, nodePort)
		checkEventually(t, l, "client", "192.0.2.1:31001", "200 1")
	}
	d.write(t, "node.yaml", strings.Replace(nodeManifest, "192.0.2.1", "203.0.113.9", 1))
	eventually(t, l.Node(), true, "203.0.113.9 . tcp . 30001")
	eventually(t, l.Node(), false, "192.0.2.1 . tcp . 30001")
}
