package proxier

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/nftproxy/nftproxy/internal/configtest"
	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/kernel"
)

// daemon is a Proxier that runs on a directory of manifests.
type daemon struct {
	dir    string
	events *eventer
	stop   func()
}

// startDaemon starts a Proxier in this process, for a test that runs alone. It stops at the end of the test.
func startDaemon(t *testing.T, dir string, args ...string) *daemon {
	t.Helper()
	args = append([]string{"--source=" + dir, "--hostname-override=node-a",
		"--cluster-cidr=10.244.0.0/16,fd00:10:244::/56", "--oom-score-adj=0"}, args...)
	p, err := New(Options{Config: configtest.Parse(t, args...), Version: "v0.0.0-test",
		Flags: map[string]string{"hostname-override": "node-a", "v": "2"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	stopped := false
	d := &daemon{dir: dir, events: p.events, stop: func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the daemon stopped with: %v", err)
		}
	}}
	t.Cleanup(d.stop)
	return d
}

// write puts a manifest into the directory as editors do: it writes another file and renames that.
func (d *daemon) write(t testing.TB, name, content string) {
	t.Helper()
	file := filepath.Join(d.dir, name)
	if err := os.WriteFile(file+".new", []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// eventually waits until the listing of the ruleset, without counters, has the text or no longer has it.
func eventually(t *testing.T, ns *lab.Namespace, want bool, text string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		listing, err := ns.Nft("", "-s", "list", "ruleset")
		if err != nil {
			t.Fatal(err)
		}
		listing = strings.ReplaceAll(listing, " counter ", " ")
		if strings.Contains(listing, text) == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after 10 s: %q in the kernel: %v, want %v, in:\n%s", text, !want, want, listing)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

const nodeManifest = `
apiVersion: v1
kind: Node
metadata: {name: node-a}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}, {type: InternalIP, address: "2001:db8::1"}]}
`

const webManifest = `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  type: NodePort
  clusterIP: 10.96.0.10
  ports: [{port: 80, nodePort: 30080}]
`

// endpointsManifest returns the EndpointSlice of a Service with these pods, on port 8080.
func endpointsManifest(service string, pods ...string) string {
	var b strings.Builder
	b.WriteString("apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n")
	fmt.Fprintf(&b, "metadata: {name: %s-1, namespace: default, ", service)
	fmt.Fprintf(&b, "labels: {kubernetes.io/service-name: %s}}\n", service)
	b.WriteString("addressType: IPv4\nports: [{port: 8080}]\nendpoints:\n")
	for _, pod := range pods {
		node := "node-b"
		if strings.HasPrefix(pod, "10.244.1.") {
			node = "node-a"
		}
		fmt.Fprintf(&b, "- {addresses: [%s], nodeName: %s}\n", pod, node)
	}
	return b.String()
}

const (
	podA, podB, podC, podD = "10.244.1.11", "10.244.1.12", "10.244.2.11", "10.244.2.12"
)

// serve starts servers for the pods, TCP on port 8080.
func serve(t *testing.T, l *lab.Lab, pods ...string) {
	t.Helper()
	for _, pod := range pods {
		if err := l.Serve(netip.AddrPortFrom(netip.MustParseAddr(pod), 8080), "tcp"); err != nil {
			t.Fatal(err)
		}
	}
}

func webManifests(t *testing.T, pods ...string) string {
	t.Helper()
	d := &daemon{dir: t.TempDir()}
	d.write(t, "node.yaml", nodeManifest)
	d.write(t, "web.yaml", webManifest)
	d.write(t, "web-endpoints.yaml", endpointsManifest("web", pods...))
	return d.dir
}

// TestDaemonFollowsFiles replaces pods one after the other under load: no request may fail, and in the end
// the new pods answer.
func TestDaemonFollowsFiles(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	l := newLab(t, lab.Options{Here: true})
	serve(t, l, podA, podB, podC, podD)
	d := startDaemon(t, webManifests(t, podA, podB))
	eventually(t, l.Node(), true, "goto cluster-2")
	loads := []*lab.Load{
		l.Steady(t.Context(), "pod-b", "tcp", netip.MustParseAddrPort("10.96.0.10:80"), 2*time.Millisecond),
		l.Steady(t.Context(), "client", "tcp", netip.MustParseAddrPort("192.0.2.1:30080"),
			2*time.Millisecond),
	}
	for _, pods := range [][]string{{podA, podB, podC}, {podB, podC}, {podB, podC, podD}, {podC, podD}} {
		d.write(t, "web-endpoints.yaml", endpointsManifest("web", pods...))
		element := fmt.Sprintf(`10.96.0.10 . tcp . 80 comment "default/web" : 4c00:%x`, len(pods))
		eventually(t, l.Node(), true, element)
	}
	for _, load := range loads {
		if r := load.Stop(); r.Lost() > 0 || r.Sent < 10 {
			t.Errorf("%d of %d requests were lost: %v", r.Lost(), r.Sent, r.Err)
		}
	}
	checkRows(t, l, lab.Row{From: "client", To: target(t, "tcp 192.0.2.1:30080"),
		By: []string{"pod-c", "pod-d"}})
	if err := os.Remove(filepath.Join(d.dir, "web.yaml")); err != nil {
		t.Fatal(err)
	}
	eventually(t, l.Node(), false, "default/web")
}

func target(t *testing.T, text string) lab.Target {
	t.Helper()
	proto, addr, _ := strings.Cut(text, " ")
	return lab.Target{Proto: proto, Addr: netip.MustParseAddrPort(addr)}
}

func checkRows(t *testing.T, l *lab.Lab, rows ...lab.Row) {
	t.Helper()
	for _, row := range rows {
		if _, err := l.Check(t.Context(), row); err != nil {
			t.Error(err)
		}
	}
}

// TestDaemonRestarts stops the daemon and starts it again under load: no request is lost, and the restart
// writes nothing. When the manifests changed meanwhile it writes the difference, and a sticky client keeps
// its pod.
func TestDaemonRestarts(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	l := newLab(t, lab.Options{Here: true})
	serve(t, l, podA, podB, podC)
	dir := webManifests(t, podA, podB, podC)
	d := &daemon{dir: dir}
	d.write(t, "web.yaml", strings.Replace(webManifest, "spec:", "spec:\n  sessionAffinity: ClientIP", 1))
	first := startDaemon(t, dir)
	eventually(t, l.Node(), true, "goto sticky-cluster-3")
	load := l.Steady(t.Context(), "client", "tcp", netip.MustParseAddrPort("192.0.2.1:30080"),
		2*time.Millisecond)
	stuck := l.Request("client-2", "tcp", netip.MustParseAddrPort("192.0.2.1:30080"))
	first.stop()
	conn := dial(t, l.Node(), kernel.Options{})
	before, err := conn.Generation()
	if err != nil {
		t.Fatal(err)
	}
	second := startDaemon(t, dir)
	late := strings.NewReplacer("web", "late", "10.96.0.10", "10.96.0.20", "30080", "30081")
	second.write(t, "late.yaml", late.Replace(webManifest))
	eventually(t, l.Node(), true, "default/late")
	after, err := conn.Generation()
	if err != nil {
		t.Fatal(err)
	}
	if after != before+1 {
		t.Errorf("the restart and one change made %d transactions, want 1", after-before)
	}
	if r := load.Stop(); r.Lost() > 0 {
		t.Errorf("%d of %d requests were lost: %v", r.Lost(), r.Sent, r.Err)
	}
	second.stop()
	// One more endpoint while no daemon runs.
	d.write(t, "web-endpoints.yaml", endpointsManifest("web", podA, podB, podC, podD))
	startDaemon(t, dir)
	eventually(t, l.Node(), true, "goto sticky-cluster-4")
	checkRows(t, l, lab.Row{From: "client-2", To: target(t, "tcp 192.0.2.1:30080"), By: []string{stuck.By},
		Requests: 20})
}

// TestStickyClientIsReleased removes the endpoint of a client: the client gets another one. Before, it keeps
// its endpoint when another one is added.
func TestStickyClientIsReleased(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	l := newLab(t, lab.Options{Here: true})
	serve(t, l, podA, podB)
	dir := webManifests(t, podA)
	sticky := strings.Replace(webManifest, "spec:", "spec:\n  sessionAffinity: ClientIP", 1)
	d := startDaemon(t, dir)
	d.write(t, "web.yaml", sticky)
	eventually(t, l.Node(), true, "goto sticky-external-1-10800")
	nodePort := target(t, "tcp 192.0.2.1:30080")
	checkRows(t, l, lab.Row{From: "client", To: nodePort, By: []string{"pod-a"}, Requests: 4})
	d.write(t, "web-endpoints.yaml", endpointsManifest("web", podA, podB))
	eventually(t, l.Node(), true, "goto sticky-external-2-10800")
	checkRows(t, l, lab.Row{From: "client", To: nodePort, By: []string{"pod-a"}, Requests: 20})
	d.write(t, "web-endpoints.yaml", endpointsManifest("web", podB))
	eventually(t, l.Node(), false, podA)
	checkRows(t, l, lab.Row{From: "client", To: nodePort, By: []string{"pod-b"}, Requests: 20})
}

// TestDaemonFollowsAddresses adds an address to the node and removes it: nodePorts follow, within 0.0.0.0/0
// and never on loopback.
func TestDaemonFollowsAddresses(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	l := newLab(t, lab.Options{Here: true})
	serve(t, l, podA)
	startDaemon(t, webManifests(t, podA), "--nodeport-addresses=0.0.0.0/0")
	eventually(t, l.Node(), true, "192.0.2.1 . tcp . 30080")
	row := lab.Row{From: "client", To: target(t, "tcp 203.0.113.9:30080"), By: []string{"pod-a"}}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP("203.0.113.9"), Mask: net.CIDRMask(32, 32)}}
	change := func(f func(netlink.Link, *netlink.Addr) error) {
		t.Helper()
		link, err := netlink.LinkByName("eth0")
		if err == nil {
			err = f(link, addr)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	change(netlink.AddrAdd)
	eventually(t, l.Node(), true, "203.0.113.9 . tcp . 30080")
	checkRows(t, l, row)
	change(netlink.AddrDel)
	eventually(t, l.Node(), false, "203.0.113.9 . tcp . 30080")
	eventually(t, l.Node(), false, "127.0.0.1 . tcp . 30080")
}

// TestRefusalNamesElement makes the kernel refuse one element of many.
func TestRefusalNamesElement(t *testing.T) {
	ns := lab.TestNamespace(t)
	n := newNode(t, "", webManifests(t, podA), ns)
	n.load(t, webManifests(t, podA))
	n.sync(t)
	nftIn(t, ns, "", "add", "element", "ip", "nftproxy", "endpoints",
		"{ 10.96.0.10 . tcp . 80 . 1 : 10.244.9.9 . 1 }")
	n.load(t, webManifests(t, podA, podB))
	err := n.trySync(t)
	want := `add element ip nftproxy endpoints { 10.96.0.10 . tcp . 80 . 1 : 10.244.1.12 . 8080 }: ` +
		`file exists`
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Fatalf("got error %v, want one with %q", err, want)
	}
	n.sync(t) // reads back and repairs
	listing := nftIn(t, ns, "", "list", "ruleset")
	if strings.Contains(listing, "10.244.9.9") || !strings.Contains(listing, podB) {
		t.Errorf("not repaired:\n%s", listing)
	}
}

// TestBrokenTableIsReplaced starts with tables of the right name and the wrong content.
func TestBrokenTableIsReplaced(t *testing.T) {
	for _, script := range []string{
		"table ip nftproxy { set cluster-ips { type inet_service; }; }",
		"table ip nftproxy { chain nat-output { type nat hook prerouting priority 5; }; }",
		"table ip nftproxy { " +
			"chain services { accept; }; set foreign { type mark; }; chain other { jump services; }; }",
		"table ip nftproxy { " +
			"set pod-cidrs { type ipv4_addr; flags interval; elements = { 10.0.0.1-10.0.0.5 }; }; }",
	} {
		ns := lab.TestNamespace(t)
		nftIn(t, ns, script, "-f", "-")
		manifests := webManifests(t, podA)
		n := newNode(t, "", manifests, ns)
		n.load(t, manifests)
		n.sync(t)
		restartWritesNothing(t, n, "", manifests, ns)
		listing := nftIn(t, ns, "", "list", "ruleset")
		if strings.Contains(listing, "other") || strings.Contains(listing, "10.0.0.1") {
			t.Errorf("after %s:\n%s", script, listing)
		}
	}
}
