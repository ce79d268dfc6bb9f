package proxier

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/rules/service"
)

const (
	stickyManifest = `apiVersion: v1
kind: Service
metadata: {name: sticky, namespace: default, creationTimestamp: "2026-01-01T00:00:00Z"}
spec:
  type: LoadBalancer
  clusterIPs: [10.96.0.20, "fd00:10:96::20"]
  clusterIP: 10.96.0.20
  externalIPs: [198.51.100.20, "2001:db8:1::120"]
  sessionAffinity: ClientIP
  ports: [{port: 80}]
`
	// stickyWeb is another Service with session affinity.
	stickyWeb = `apiVersion: v1
kind: Service
metadata: {name: web, namespace: default, creationTimestamp: "2026-01-01T00:00:00Z"}
spec:
  type: LoadBalancer
  clusterIPs: [10.96.0.30, "fd00:10:96::30"]
  clusterIP: 10.96.0.30
  externalIPs: ["2001:db8:1::130"]
  sessionAffinity: ClientIP
  ports: [{port: 80}]
`
	stickyAddr  = "198.51.100.20:80"
	stickyAddr6 = "[2001:db8:1::120]:80"
	webAddr6    = "[2001:db8:1::130]:80"
)

// pods6 has the IPv6 addresses of the lab's pods.
func pods6() map[string]string {
	return map[string]string{
		podA: "fd00:10:244:1::11", podB: "fd00:10:244:1::12", podC: "fd00:10:244:2::11", podD: "fd00:10:244:2::12",
	}
}

// stickyEndpoints returns the slices of a Service in both families. A pod with a leading - is terminating.
func stickyEndpoints(service string, pods ...string) string {
	var b strings.Builder
	for _, family := range []string{"IPv4", "IPv6"} {
		fmt.Fprintf(&b, "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: %s-%s, "+
			"namespace: default, labels: {kubernetes.io/service-name: %s}}\naddressType: %s\n"+
			"ports: [{port: 8080}]\nendpoints:\n", service, strings.ToLower(family), service, family)
		for _, pod := range pods {
			pod, terminating := strings.CutPrefix(pod, "-")
			node := "node-b"
			if strings.HasPrefix(pod, "10.244.1.") {
				node = "node-a"
			}
			if family == "IPv6" {
				pod = pods6()[pod]
			}
			fmt.Fprintf(&b, "- {addresses: [%q], nodeName: %s, conditions: {ready: %t, serving: true, terminating: %t}}\n",
				pod, node, !terminating, terminating)
		}
		b.WriteString("---\n")
	}
	return b.String()
}

// stickyWorld is a lab with a node that serves the Service sticky, and clients with many addresses.
type stickyWorld struct {
	*lab.Lab
	dir  *daemon
	node *node
}

func newStickyWorld(t *testing.T, manifest string, pods ...string) *stickyWorld {
	t.Helper()
	w := &stickyWorld{Lab: newLab(t, lab.Options{}), dir: &daemon{dir: t.TempDir()}}
	for v4, v6 := range pods6() {
		serve(t, w.Lab, v4, v6)
	}
	w.dir.write(t, "node.yaml", nodeManifest)
	w.dir.write(t, "sticky.yaml", manifest)
	w.dir.write(t, "endpoints.yaml", stickyEndpoints("sticky", pods...))
	w.node = newNode(t, w.dir.dir, w.dir.dir, w.Node())
	w.sync(t)
	return w
}

// sync programs the manifests.
func (w *stickyWorld) sync(t *testing.T) {
	t.Helper()
	w.node.load(t, w.dir.dir)
	w.node.sync(t)
}

// scale gives the Service these pods.
func (w *stickyWorld) scale(t *testing.T, pods ...string) {
	t.Helper()
	w.dir.write(t, "endpoints.yaml", stickyEndpoints("sticky", pods...))
	w.sync(t)
}

// clients gives the client's machine n more addresses, from first on, and returns them.
func (w *stickyWorld) clients(t *testing.T, n int, first netip.Addr) []netip.Addr {
	t.Helper()
	var addrs []netip.Addr
	for a := first; len(addrs) < n; a = a.Next() {
		addrs = append(addrs, a)
	}
	w.addAddrs(t, addrs...)
	return addrs
}

func (w *stickyWorld) addAddrs(t *testing.T, addrs ...netip.Addr) {
	t.Helper()
	h, err := netlink.NewHandleAt(netns.NsHandle(w.Namespace("client").FD()))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	link := slices.IndexFunc(links, func(l netlink.Link) bool { return l.Attrs().Name != "lo" })
	const noDAD = 0x02 // IFA_F_NODAD
	for _, a := range addrs {
		bits := 24
		if a.Is6() {
			bits = 64
		}
		ip := &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())}
		if err := h.AddrAdd(links[link], &netlink.Addr{IPNet: ip, Flags: noDAD}); err != nil {
			t.Fatal(err)
		}
	}
}

// ask makes one TCP connection from an address of the client's machine and returns the pod that answers.
func (w *stickyWorld) ask(from netip.Addr, to string) (pod string, err error) {
	var conn net.Conn
	err = w.Namespace("client").Do(func() (err error) {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Timeout: 2 * time.Second}
		conn, err = d.Dial("tcp", to)
		return err
	})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	text, err := bufio.NewReader(conn).ReadString(' ')
	return strings.TrimSpace(text), err
}

// askAll returns the pod that answers each client.
func (w *stickyWorld) askAll(t *testing.T, clients []netip.Addr, to string) map[netip.Addr]string {
	t.Helper()
	pods := map[netip.Addr]string{}
	for _, c := range clients {
		pod, err := w.ask(c, to)
		if err != nil {
			t.Fatalf("%s to %s: %v", c, to, err)
		}
		pods[c] = pod
	}
	return pods
}

// expectSame asks again and fails for each client that another pod answers.
func (w *stickyWorld) expectSame(t *testing.T, want map[netip.Addr]string, to string) {
	t.Helper()
	for c, pod := range w.askAll(t, slices.SortedFunc(maps.Keys(want), netip.Addr.Compare), to) {
		if want[c] != pod {
			t.Errorf("client %s moved from %s to %s", c, want[c], pod)
		}
	}
}

var (
	firstClient  = netip.MustParseAddr("192.0.2.130")
	firstClient6 = netip.MustParseAddr("2001:db8::1:1")
)

// TestAffinityFollowsEndpoints removes and adds endpoints. Clients of endpoints that stay keep them; clients of a
// removed one choose anew and keep that.
func TestAffinityFollowsEndpoints(t *testing.T) {
	for _, f := range []struct {
		name, to string
		first    netip.Addr
	}{{"ipv4", stickyAddr, firstClient}, {"ipv6", stickyAddr6, firstClient6}} {
		t.Run(f.name, func(t *testing.T) {
			w := newStickyWorld(t, stickyManifest, podA, podB, podC)
			before := w.askAll(t, w.clients(t, 40, f.first), f.to)
			w.scale(t, podA, podC, podD)
			after := w.askAll(t, slices.Collect(maps.Keys(before)), f.to)
			moved := 0
			for c, pod := range before {
				switch {
				case pod == "pod-b":
					moved++
					if after[c] == "pod-b" {
						t.Errorf("client %s reaches pod-b, which was removed", c)
					}
				case after[c] != pod:
					t.Errorf("client %s moved from %s, which stays, to %s", c, pod, after[c])
				}
			}
			if moved == 0 || moved == len(before) {
				t.Errorf("%d of %d clients were on pod-b: the test shows nothing", moved, len(before))
			}
			w.expectSame(t, after, f.to)
		})
	}
}

// TestAffinityRemovalIsImmediate removes an endpoint under load: no connection that begins after the commit reaches it.
func TestAffinityRemovalIsImmediate(t *testing.T) {
	w := newStickyWorld(t, stickyManifest, podA, podB, podC)
	clients := w.clients(t, 30, firstClient)
	w.askAll(t, clients, stickyAddr)
	type answer struct {
		begin time.Time
		pod   string
		err   error
	}
	var mu sync.Mutex
	var answers []answer
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var load sync.WaitGroup
	for i := range 4 {
		load.Go(func() {
			for n := i; ctx.Err() == nil; n++ {
				a := answer{begin: time.Now()}
				a.pod, a.err = w.ask(clients[n%len(clients)], stickyAddr)
				mu.Lock()
				answers = append(answers, a)
				mu.Unlock()
			}
		})
	}
	time.Sleep(100 * time.Millisecond)
	w.scale(t, podA, podC)
	committed := time.Now()
	time.Sleep(200 * time.Millisecond)
	stop()
	load.Wait()
	before, after := 0, 0
	for _, a := range answers {
		switch {
		case a.err != nil:
			t.Errorf("a connection failed: %v", a.err)
		case a.begin.After(committed):
			after++
			if a.pod == "pod-b" {
				t.Errorf("a connection that began %v after the commit reached pod-b", a.begin.Sub(committed))
			}
		case a.pod == "pod-b":
			before++
		}
	}
	if before == 0 || after < 10 {
		t.Errorf("%d connections to pod-b before, %d after: the test shows nothing", before, after)
	}
}

// TestAffinityBesideMasquerade lets another program masquerade everything before nftproxy's chain, as kindnet does. A
// client keeps its endpoint, because nftproxy remembers clients when it translates.
func TestAffinityBesideMasquerade(t *testing.T) {
	w := newStickyWorld(t, stickyManifest, podA, podB, podC)
	nftIn(t, w.Node(), "table ip other { chain p { type nat hook postrouting priority 95; masquerade; }; }\n", "-f", "-")
	first := w.askAll(t, w.clients(t, 20, firstClient), stickyAddr)
	for range 3 {
		w.expectSame(t, first, stickyAddr)
	}
}

// TestAffinityLocalTerminating has a pod with session affinity to a local endpoint, under policy Local. When that
// endpoint terminates and another node has a ready one, the pod goes there.
func TestAffinityLocalTerminating(t *testing.T) {
	w := newStickyWorld(t, strings.Replace(stickyManifest,
		"  sessionAffinity:", "  externalTrafficPolicy: Local\n  sessionAffinity:", 1), podA)
	row := lab.Row{From: "pod-b", To: target(t, "tcp "+stickyAddr), By: []string{"pod-a"}}
	checkRows(t, w.Lab, row)
	w.scale(t, "-"+podA, podC)
	row.By = []string{"pod-c"}
	// Traffic from outside goes to endpoints on this node only, and to terminating ones if there are no others.
	checkRows(t, w.Lab, row, lab.Row{From: "client", To: target(t, "tcp "+stickyAddr), By: []string{"pod-a"}})
}

// TestAffinityLeavesNothing removes the session affinity of the last Service that has it: a full sync finds nothing to
// do.
func TestAffinityLeavesNothing(t *testing.T) {
	w := newStickyWorld(t, stickyManifest, podA, podB)
	w.askAll(t, w.clients(t, 5, firstClient), stickyAddr)
	w.dir.write(t, "sticky.yaml", strings.Replace(stickyManifest, "sessionAffinity: ClientIP", "sessionAffinity: None", 1))
	w.sync(t)
	if d := w.node.diff(t); !d.Empty() {
		t.Errorf("a full sync would change\n%s", deltaText(d))
	}
}

// TestAffinityTimeoutChanges gives the Service another timeout: clients keep their endpoints.
func TestAffinityTimeoutChanges(t *testing.T) {
	w := newStickyWorld(t, stickyManifest, podA, podB, podC)
	first := w.askAll(t, w.clients(t, 20, firstClient), stickyAddr)
	w.dir.write(t, "sticky.yaml", strings.Replace(stickyManifest, "  ports:",
		"  sessionAffinityConfig: {clientIP: {timeoutSeconds: 600}}\n  ports:", 1))
	w.sync(t)
	w.expectSame(t, first, stickyAddr)
	if text := nftIn(t, w.Node(), "", "list", "map", "ip", "nftproxy", "affinity"); !strings.Contains(text, "expires 9m") {
		t.Errorf("no client is remembered for 10 minutes:\n%s", text)
	}
}

// TestAffinityExpires waits longer than the timeout: the client is forgotten.
func TestAffinityExpires(t *testing.T) {
	w := newStickyWorld(t, strings.Replace(stickyManifest, "  ports:",
		"  sessionAffinityConfig: {clientIP: {timeoutSeconds: 1}}\n  ports:", 1), podA, podB, podC)
	client, seen := w.clients(t, 1, firstClient)[0], map[string]bool{}
	for range 20 {
		pod, err := w.ask(client, stickyAddr)
		if err != nil {
			t.Fatal(err)
		}
		if seen[pod] = true; len(seen) > 1 {
			return
		}
		time.Sleep(1100 * time.Millisecond)
	}
	t.Errorf("a client reached %v only, with pauses longer than the timeout", slices.Collect(maps.Keys(seen)))
}

// TestAffinityRestart starts a new process with clients remembered: it writes nothing, and the clients keep their
// endpoints.
func TestAffinityRestart(t *testing.T) {
	w := newStickyWorld(t, stickyManifest, podA, podB, podC)
	w.scale(t, podB, podC, podD) // slots are not in the order of addresses
	first := w.askAll(t, w.clients(t, 20, firstClient), stickyAddr)
	generation := w.node.generation(t)
	w.node = newNode(t, w.dir.dir, w.dir.dir, w.Node())
	w.sync(t)
	if now := w.node.generation(t); now != generation {
		t.Errorf("the restart moved the generation from %d to %d", generation, now)
	}
	w.expectSame(t, first, stickyAddr)
}

// TestAffinityMapIsFull fills the map of clients. A new client is served and not remembered; clients that are
// remembered keep their endpoints.
func TestAffinityMapIsFull(t *testing.T) {
	w := newStickyWorld(t, stickyManifest, podA, podB, podC)
	first := w.askAll(t, w.clients(t, 20, firstClient), stickyAddr)
	fillAffinity(t, w.Node(), service.Frontend{
		Addr: netip.MustParseAddr("198.51.100.20"), Protocol: service.TCP, Port: 80})
	w.expectSame(t, first, stickyAddr)
	fresh, seen := w.clients(t, 1, netip.MustParseAddr("192.0.2.190"))[0], map[string]bool{}
	for range 60 {
		pod, err := w.ask(fresh, stickyAddr)
		if err != nil {
			t.Fatalf("a new client is not served: %v", err)
		}
		seen[pod] = true
	}
	if len(seen) != 3 {
		t.Errorf("a client that is not remembered reached %v, want all three pods", slices.Collect(maps.Keys(seen)))
	}
}

// TestAffinityCollisions lets clients collide in the hash by which IPv6 clients are remembered: with a client of another
// Service, a connection goes to an endpoint of its own Service all the same; two clients of one frontend share what is
// remembered.
func TestAffinityCollisions(t *testing.T) {
	w := newStickyWorld(t, stickyManifest, podA, podB)
	w.dir.write(t, "web.yaml", stickyWeb)
	w.dir.write(t, "web-endpoints.yaml", stickyEndpoints("web", podC))
	w.sync(t)
	a, b := collision(t, netip.MustParseAddrPort(stickyAddr6), netip.MustParseAddrPort(webAddr6))
	w.addAddrs(t, a, b)
	for range 5 {
		if pod, err := w.ask(a, stickyAddr6); err != nil || pod != "pod-a" && pod != "pod-b" {
			t.Errorf("sticky: reached %q, %v", pod, err)
		}
		if pod, err := w.ask(b, webAddr6); err != nil || pod != "pod-c" {
			t.Errorf("web: reached %q, %v", pod, err)
		}
		if text := nftIn(t, w.Node(), "", "list", "map", "ip6", "nftproxy", "affinity"); strings.Count(text, "expires") != 1 {
			t.Fatalf("%s and %s do not collide:\n%s", a, b, text)
		}
	}
	a, b = collision(t, netip.MustParseAddrPort(stickyAddr6), netip.MustParseAddrPort(stickyAddr6))
	w.addAddrs(t, a, b)
	first := w.askAll(t, []netip.Addr{a}, stickyAddr6)
	for range 10 {
		if pod, err := w.ask(b, stickyAddr6); err != nil || pod != first[a] {
			t.Errorf("reached %q, %v, want %s as the client that collides", pod, err, first[a])
		}
	}
}

// TestPriorityLeavesNoTrace counts packets that leave the node with a priority: forwarded or its own, with session
// affinity or without.
func TestPriorityLeavesNoTrace(t *testing.T) {
	w := newStickyWorld(t, stickyManifest, podA, podB, podC)
	w.dir.write(t, "web.yaml", strings.Replace(stickyWeb, "sessionAffinity: ClientIP", "sessionAffinity: None", 1))
	w.dir.write(t, "web-endpoints.yaml", stickyEndpoints("web", podA, podC))
	w.sync(t)
	nftIn(t, w.Node(), `table inet watch {
	chain p {
		type filter hook postrouting priority 300
		meta l4proto tcp counter
		meta l4proto tcp meta priority != none counter
	}
}
`, "-f", "-")
	for _, to := range []string{stickyAddr, stickyAddr6, "10.96.0.20:80", "[fd00:10:96::20]:80",
		webAddr6, "10.96.0.30:80", "[fd00:10:96::30]:80"} {
		for _, from := range []string{"client", "pod-b", "node"} {
			for range 5 {
				if r := w.Request(from, "tcp", netip.MustParseAddrPort(to)); r.Outcome != lab.Answered {
					t.Fatalf("%s to %s: %v, %v", from, to, r.Outcome, r.Err)
				}
			}
		}
	}
	var packets []int
	listing := nftIn(t, w.Node(), "", "list", "chain", "inet", "watch", "p")
	for _, text := range strings.Split(listing, "packets ")[1:] {
		var n int
		if _, err := fmt.Sscan(text, &n); err != nil {
			t.Fatal(err)
		}
		packets = append(packets, n)
	}
	if len(packets) != 2 || packets[0] < 100 || packets[1] != 0 {
		t.Errorf("packets, and those of them with a priority: %d, want many and none", packets)
	}
}
