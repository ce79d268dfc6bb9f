package proxier

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// changeAddr adds or deletes an address of eth0 in the namespace of this process.
func changeAddr(t *testing.T, change func(netlink.Link, *netlink.Addr) error, text string) {
	t.Helper()
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	addr, err := netlink.ParseAddr(text)
	if err == nil {
		err = change(link, addr)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// serve6 starts the server of pod-a in IPv6.
func serve6(t *testing.T, l *lab.Lab) {
	t.Helper()
	if err := l.Serve(netip.MustParseAddrPort("[fd00:10:244:1::11]:8080"), "tcp"); err != nil {
		t.Fatal(err)
	}
}

// TestPrimaryWithoutFamily runs with a Node that has no IPv6 address: nodePorts and health checks of IPv6 are
// on all addresses, and follow them, until the Node has one. IPv4 stays on the primary address.
func TestPrimaryWithoutFamily(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	l := newLab(t, lab.Options{Here: true})
	serve(t, l, podA)
	serve6(t, l)
	d := &daemon{dir: t.TempDir()}
	const address6 = `, {type: InternalIP, address: "2001:db8::1"}`
	d.write(t, "node.yaml", strings.Replace(nodeManifest, address6, "", 1))
	d.write(t, "local.yaml",
		localManifest("local", 31001, []string{"10.96.0.20", "fd00:10:96::20"}, podA, "fd00:10:244:1::11"))
	changeAddr(t, netlink.AddrAdd, "203.0.113.9/32")
	startDaemon(t, d.dir)
	served := func(addr string) lab.Row {
		return lab.Row{From: "client", To: target(t, "tcp "+addr+":30001"), By: []string{"pod-a"}}
	}
	refused := func(addr string) lab.Row {
		return lab.Row{From: "client", To: target(t, "tcp "+addr+":30001"), Refused: true}
	}
	eventually(t, l.Node(), true, "2001:db8::1 . tcp . 30001")
	checkRows(t, l, served("[2001:db8::1]"), served("192.0.2.1"), refused("203.0.113.9"))
	changeAddr(t, netlink.AddrAdd, "2001:db8:1::9/128")
	eventually(t, l.Node(), true, "2001:db8:1::9 . tcp . 30001")
	checkRows(t, l, served("[2001:db8:1::9]"))
	checkEventually(t, l, "client", "[2001:db8:1::9]:31001", "200 1")
	checkEventually(t, l, "client", "203.0.113.9:31001", "refused")

	d.write(t, "node.yaml", nodeManifest)
	eventually(t, l.Node(), false, "2001:db8:1::9 . tcp . 30001")
	checkRows(t, l, served("[2001:db8::1]"), served("192.0.2.1"), refused("[2001:db8:1::9]"))
	checkEventually(t, l, "client", "[2001:db8:1::9]:31001", "refused")
	checkEventually(t, l, "client", "[2001:db8::1]:31001", "200 1")
}

// TestLocalRoutes adds addresses that are local by a route only, as cloud agents do for load-balancer IPs,
// before the start and while the daemon runs, and deletes them: nodePorts and health checks follow.
func TestLocalRoutes(t *testing.T) {
	for name, addresses := range map[string]string{"all": "all", "ranges": "203.0.113.0/24,2001:db8:1::/64"} {
		t.Run(name, func(t *testing.T) {
			if lab.Alone(t) {
				followsLocalRoutes(t, addresses)
			}
		})
	}
}

func followsLocalRoutes(t *testing.T, addresses string) {
	l := newLab(t, lab.Options{Here: true})
	serve(t, l, podA)
	serve6(t, l)
	d := &daemon{dir: t.TempDir()}
	d.write(t, "node.yaml", nodeManifest)
	d.write(t, "local.yaml",
		localManifest("local", 31001, []string{"10.96.0.20", "fd00:10:96::20"}, podA, "fd00:10:244:1::11"))
	changeRoute(t, netlink.RouteAdd, "203.0.113.200/32")
	startDaemon(t, d.dir, "--nodeport-addresses="+addresses)
	for i, addr := range []string{"203.0.113.200", "2001:db8:1::c8"} {
		if i > 0 {
			changeRoute(t, netlink.RouteAdd, addr+"/128")
		}
		eventually(t, l.Node(), true, addr+" . tcp . 30001")
		at := netip.AddrPortFrom(netip.MustParseAddr(addr), 30001)
		checkRows(t, l, lab.Row{From: "client", To: target(t, "tcp "+at.String()), By: []string{"pod-a"}})
		checkEventually(t, l, "client", netip.AddrPortFrom(at.Addr(), 31001).String(), "200 1")
	}
	changeRoute(t, netlink.RouteDel, "203.0.113.200/32")
	eventually(t, l.Node(), false, "203.0.113.200 . tcp . 30001")
	eventually(t, l.Node(), true, "2001:db8:1::c8 . tcp . 30001")
	changeRoute(t, netlink.RouteAdd, "203.0.113.201/32")
	eventually(t, l.Node(), true, "203.0.113.201 . tcp . 30001")
	checkEventually(t, l, "client", "203.0.113.201:31001", "200 1")
	if addresses == "all" { // nodePorts are never on loopback, health checks are
		eventually(t, l.Node(), false, "127.0.0.1 . tcp . 30001")
		checkEventually(t, l, "node", "127.0.0.1:31001", "200 1")
		checkEventually(t, l, "node", "[::1]:31001", "200 1")
	} else {
		checkEventually(t, l, "node", "127.0.0.1:31001", "refused")
	}
}

// changeRoute adds or deletes a local route through lo, as `ip route add local PREFIX dev lo` does.
func changeRoute(t *testing.T, change func(*netlink.Route) error, prefix string) {
	t.Helper()
	to, err := netlink.ParseIPNet(prefix)
	if err != nil {
		t.Fatal(err)
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = change(&netlink.Route{Dst: to, LinkIndex: lo.Attrs().Index, Type: unix.RTN_LOCAL,
			Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST})
	}
	if err != nil {
		t.Fatal(err)
	}
}
