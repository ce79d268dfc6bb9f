package proxier

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	vnetlink "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/conntrack"
	"github.com/nftproxy/nftproxy/proxier/status"
)

// TestMasqueradePortsExhausted takes the ports with which the node can masquerade connections to one
// endpoint. While some are left, connections find them. When none is left, new connections to this endpoint
// are dropped, and connection tracking counts them; connections to another endpoint work.
func TestMasqueradePortsExhausted(t *testing.T) {
	l := newLab(t, lab.Options{})
	serve(t, l, podC, podD)
	dir := webManifests(t, podC)
	n := newNode(t, dir, dir, l.Node())
	n.load(t, dir)
	n.sync(t)
	h, err := vnetlink.NewHandleAt(netns.NsHandle(l.Node().FD()), unix.NETLINK_NETFILTER)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	const first, last = 1024, 65535 // the kernel masquerades a port from 1024 on with one of these
	for port := first; port <= last; port++ {
		if port%20 != 0 {
			takePort(t, h, podC, uint16(port))
		}
	}
	row := lab.Row{From: "client", To: target(t, "tcp 192.0.2.1:30080"), By: []string{"pod-c"}}
	n.tracks(t)
	checkRows(t, l, row)
	if lost := losses(t, l); lost.Insert > 0 {
		t.Errorf("with one free port in 20 connection tracking lost %+v", lost)
	}
	for port := first; port <= last; port++ {
		if port%20 == 0 {
			takePort(t, h, podC, uint16(port))
		}
	}
	row.By, row.Dropped, row.Requests = nil, true, 2*insertsAreNormal
	checkRows(t, l, row)
	lost := losses(t, l)
	t.Logf("no port is left: connection tracking lost %+v", lost)
	if lost.Insert == 0 || lost.Dropped < lost.Insert {
		t.Errorf("connection tracking lost %+v, want as many dropped as could not be inserted", lost)
	}
	const problem = "because no source port was free"
	if p := n.tracks(t); len(p) != 1 || !strings.Contains(p[0].What, problem) || p[0].Since.IsZero() {
		t.Errorf("the problems are %+v, want one with %q", p, problem)
	}
	(&daemon{dir: dir}).write(t, "web-endpoints.yaml", endpointsManifest("web", podD))
	n.load(t, dir)
	n.sync(t)
	row.By, row.Dropped, row.Requests = []string{"pod-d"}, false, 0
	checkRows(t, l, row)
	n.tracking.dropped = time.Now().Add(-dropsAreNews - time.Second)
	if p := n.tracks(t); len(p) > 0 {
		t.Errorf("a while after the last loss the problems are %+v", p)
	}
}

// takePort makes a flow that the node has masqueraded: from its port to a pod, TCP port 8080. A port that is
// taken stays so.
func takePort(t *testing.T, h *vnetlink.Handle, pod string, port uint16) {
	t.Helper()
	ip := func(addr string) net.IP { return netip.MustParseAddr(addr).AsSlice() }
	err := h.ConntrackCreate(vnetlink.ConntrackTable, unix.AF_INET, &vnetlink.ConntrackFlow{
		FamilyType: unix.AF_INET, TimeOut: 600,
		Forward: vnetlink.IPTuple{Protocol: unix.IPPROTO_TCP, SrcIP: ip("192.0.2.200"), SrcPort: port,
			DstIP: ip("192.0.2.1"), DstPort: 30080},
		Reverse: vnetlink.IPTuple{Protocol: unix.IPPROTO_TCP, SrcIP: ip(pod), SrcPort: 8080,
			DstIP: ip("192.0.2.1"), DstPort: port},
	})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		t.Fatalf("take port %d: %v", port, err)
	}
}

// tracks looks at connection tracking as the daemon does, and returns the problems of the node.
func (n *node) tracks(t *testing.T) []status.Problem {
	t.Helper()
	if err := n.ns.Do(func() error { n.watchTracking(); return nil }); err != nil {
		t.Fatal(err)
	}
	return n.notes.list()
}

func losses(t *testing.T, l *lab.Lab) (lost conntrack.Losses) {
	t.Helper()
	err := l.Node().Do(func() (err error) {
		lost, err = conntrack.ReadLosses()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return lost
}
