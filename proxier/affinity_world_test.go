package proxier

import (
	"bufio"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/nftproxy/nftproxy/internal/lab"
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
			fmt.Fprintf(&b, "- {addresses: [%q], nodeName: %s, "+
				"conditions: {ready: %t, serving: true, terminating: %t}}\n",
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
