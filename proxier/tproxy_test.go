package proxier

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/rules/service"
)

const serviceCIDRManifest = `
apiVersion: networking.k8s.io/v1
kind: ServiceCIDR
metadata: {name: kubernetes}
spec: {cidrs: [10.96.0.0/16, "fd00:10:96::/112"]}
`

// tproxyMark is the mark by which the packets of the other proxy are routed to this node.
const tproxyMark = 0x200

// startTransparentProxy starts another proxy on this node: it takes TCP connections to port 8000 of any
// ClusterIP by TPROXY rules, and answers as the server "other".
func startTransparentProxy(t *testing.T, ns *lab.Namespace) {
	t.Helper()
	transparent := func(_, _ string, c syscall.RawConn) (err error) {
		failed := c.Control(func(fd uintptr) {
			if err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1); err == nil {
				err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
			}
		})
		if err == nil || strings.Contains(err.Error(), "protocol not available") {
			err = failed
		}
		return err
	}
	for _, f := range service.Families() {
		loopback, ranges, all := "127.0.0.1", "10.96.0.0/16", "0.0.0.0/0"
		if f == service.IPv6 {
			loopback, ranges, all = "[::1]", "fd00:10:96::/112", "::/0"
		}
		config := net.ListenConfig{Control: transparent}
		config.SetMultipathTCP(false)
		l, err := config.Listen(context.Background(), "tcp", loopback+":15001")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go answer(l)
		nftIn(t, ns, fmt.Sprintf(`table %[1]s other { chain pre { type filter hook prerouting priority mangle;
			%[1]s daddr %[2]s tcp dport 8000 tproxy to %[3]s:15001 meta mark set %[4]d accept; }; }`,
			f, ranges, loopback, tproxyMark), "-f", "-")
		_, dst, err := net.ParseCIDR(all)
		if err != nil {
			t.Fatal(err)
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			t.Fatal(err)
		}
		rule := netlink.NewRule()
		rule.Family, rule.Mark, rule.Table, rule.Priority = int(f.Number()), tproxyMark, 100, 100
		if err := netlink.RuleAdd(rule); err != nil {
			t.Fatal(err)
		}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: dst, Table: 100,
			Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST}); err != nil {
			t.Fatal(err)
		}
	}
}

// answer greets as the servers of the lab do.
func answer(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = fmt.Fprintf(conn, "other %s\n", conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr())
		_ = conn.Close()
	}
}

// TestTransparentProxy runs another proxy on the node, which takes connections by TPROXY: to a ClusterIP that
// no Service has, and to a port that a ClusterIP does not have. All other connections to such addresses are
// dropped and refused as ever.
func TestTransparentProxy(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	l, dir := newRegistry(t)
	dir.write(t, "cidrs.yaml", serviceCIDRManifest)
	startDaemon(t, dir.dir)
	eventuallyHealthy(t)
	startTransparentProxy(t, l.Node())
	const unused4, unused6 = "10.96.7.7", "fd00:10:96::777"
	for _, from := range []string{"pod-b", "client"} {
		for _, addr := range []string{"10.96.0.10", "fd00:10:96::10", unused4, unused6} {
			to := func(port uint16) lab.Target {
				return lab.Target{Proto: "tcp", Addr: netip.AddrPortFrom(netip.MustParseAddr(addr), port)}
			}
			checkRows(t, l, lab.Row{From: from, To: to(8000), By: []string{"other"}})
			if addr == unused4 || addr == unused6 {
				checkRows(t, l, lab.Row{From: from, To: to(80), Dropped: true},
					lab.Row{From: from, To: to(8001), Dropped: true})
				continue
			}
			checkRows(t, l, lab.Row{From: from, To: to(80), By: []string{"pod-a"}},
				lab.Row{From: from, To: to(8001), Refused: true})
		}
	}
	// The node's own connections do not pass prerouting: TPROXY cannot take them.
	checkRows(t, l, lab.Row{From: "host-pod", To: target(t, "tcp 10.96.7.7:8000"), Dropped: true},
		lab.Row{From: "host-pod", To: target(t, "tcp 10.96.0.10:8000"), Refused: true})
}
