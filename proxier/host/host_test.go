package host

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/rules/service"
)

func TestMain(m *testing.M) { lab.Main(m) }

// inNamespace runs f on a thread in a network namespace of its own, with the interface br0.
func inNamespace(t *testing.T, f func(br0 netlink.Link)) {
	t.Helper()
	ns, err := lab.NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	err = ns.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "br0"
		br0 := &netlink.Bridge{LinkAttrs: attrs}
		if err := netlink.LinkAdd(br0); err != nil {
			return err
		}
		f(br0)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func addAddr(t *testing.T, link netlink.Link, text string) {
	t.Helper()
	addr, err := netlink.ParseAddr(text)
	if err == nil {
		err = netlink.AddrAdd(link, addr)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// changeLocal adds or deletes a route of type local, in a table.
func changeLocal(t *testing.T, change func(*netlink.Route) error, prefix string, table int) {
	t.Helper()
	to, err := netlink.ParseIPNet(prefix)
	if err != nil {
		t.Fatal(err)
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = change(&netlink.Route{Dst: to, LinkIndex: lo.Attrs().Index, Type: unix.RTN_LOCAL, Table: table,
			Scope: netlink.SCOPE_HOST})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestAddrs returns the addresses of all interfaces, without an IPv6 address that is tentative: br0 is down,
// so the kernel cannot probe for duplicates. It returns addresses that are local by a route only, without
// ranges, and without those for TPROXY, which are in tables of their own.
func TestAddrs(t *testing.T) {
	inNamespace(t, func(br0 netlink.Link) {
		addAddr(t, br0, "203.0.113.9/24")
		addAddr(t, br0, "192.0.2.1/24")
		addAddr(t, br0, "2001:db8::1/64")
		changeLocal(t, netlink.RouteAdd, "198.51.100.7/32", unix.RT_TABLE_LOCAL)
		changeLocal(t, netlink.RouteAdd, "198.51.100.128/25", unix.RT_TABLE_LOCAL)
		changeLocal(t, netlink.RouteAdd, "2001:db8:1::7/128", unix.RT_TABLE_LOCAL)
		changeLocal(t, netlink.RouteAdd, "2001:db8:2::/64", unix.RT_TABLE_LOCAL)
		changeLocal(t, netlink.RouteAdd, "198.51.100.8/32", 100)
		changeLocal(t, netlink.RouteAdd, "0.0.0.0/0", 100)
		got, err := Addrs()
		if err != nil {
			t.Fatal(err)
		}
		var want []netip.Addr
		for _, text := range []string{"127.0.0.1", "192.0.2.1", "198.51.100.7", "203.0.113.9", "::1",
			"2001:db8:1::7"} {
			want = append(want, netip.MustParseAddr(text))
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("addresses (-want +got):\n%s", diff)
		}
	})
}

// TestAddrsOfNewNamespace asks in a namespace whose loopback was never up: the kernel has no table of local
// routes there.
func TestAddrsOfNewNamespace(t *testing.T) {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		addrs, err := Addrs()
		if err == nil && len(addrs) > 0 {
			err = fmt.Errorf("addresses %v, want none", addrs)
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestWatchAddrs changes addresses and local routes, and each time waits for the call.
func TestWatchAddrs(t *testing.T) {
	inNamespace(t, func(br0 netlink.Link) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var seen []string
		steps := []func(){
			func() { addAddr(t, br0, "192.0.2.1/24") },
			func() { changeLocal(t, netlink.RouteAdd, "198.51.100.7/32", unix.RT_TABLE_LOCAL) },
			func() { changeLocal(t, netlink.RouteAdd, "2001:db8:1::7/128", unix.RT_TABLE_LOCAL) },
			func() { changeLocal(t, netlink.RouteDel, "198.51.100.7/32", unix.RT_TABLE_LOCAL) },
			cancel,
		}
		want := []string{
			"[127.0.0.1 ::1]",
			"[127.0.0.1 192.0.2.1 ::1]",
			"[127.0.0.1 192.0.2.1 198.51.100.7 ::1]",
			"[127.0.0.1 192.0.2.1 198.51.100.7 ::1 2001:db8:1::7]",
			"[127.0.0.1 192.0.2.1 ::1 2001:db8:1::7]",
		}
		// WatchAddrs runs on this thread, and so in this namespace. An address makes two messages: its own,
		// and that of its route.
		err := WatchAddrs(ctx, func() {
			addrs, err := Addrs()
			if err != nil {
				t.Error(err)
			}
			if now := fmt.Sprint(addrs); len(seen) == 0 || seen[len(seen)-1] != now {
				seen = append(seen, now)
				if len(seen) <= len(steps) {
					steps[len(seen)-1]()
				}
			}
		})
		if diff := cmp.Diff(want, seen); err != nil || diff != "" {
			t.Errorf("error %v; addresses at each change (-want +got):\n%s", err, diff)
		}
	})
}

// TestWatchAddrsIgnoresOtherRoutes adds routes of another type, of which a router has many, and then a local
// one: the calls are for the start and for the local one.
func TestWatchAddrsIgnoresOtherRoutes(t *testing.T) {
	inNamespace(t, func(netlink.Link) {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			t.Fatal(err)
		}
		calls := 0
		err = WatchAddrs(ctx, func() {
			if calls++; calls > 1 {
				return
			}
			for i := range 3 {
				to := &net.IPNet{IP: net.IPv4(203, 0, 113, byte(i)), Mask: net.CIDRMask(32, 32)}
				route := &netlink.Route{Dst: to, LinkIndex: lo.Attrs().Index, Scope: netlink.SCOPE_LINK}
				if err := netlink.RouteAdd(route); err != nil {
					t.Error(err)
				}
			}
			changeLocal(t, netlink.RouteAdd, "198.51.100.7/32", unix.RT_TABLE_LOCAL)
		})
		addrs, addrsErr := Addrs()
		want := "[127.0.0.1 198.51.100.7 ::1]"
		if err != nil || addrsErr != nil || calls != 2 || fmt.Sprint(addrs) != want {
			t.Errorf("%d calls, errors %v, %v, addresses %v, want 2 calls and %s",
				calls, err, addrsErr, addrs, want)
		}
	})
}

func TestNotForwarding(t *testing.T) {
	inNamespace(t, func(netlink.Link) {
		set := func(path, value string) {
			t.Helper()
			if err := os.WriteFile("/proc/sys/"+path, []byte(value), 0); err != nil {
				t.Fatal(err)
			}
		}
		check := func(families []service.Family, want ...string) {
			t.Helper()
			if diff := cmp.Diff(want, NotForwarding(families)); diff != "" {
				t.Errorf("sysctls (-want +got):\n%s", diff)
			}
		}
		set("net/ipv4/ip_forward", "0")
		set("net/ipv6/conf/all/forwarding", "0")
		check(service.Families(), "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")
		check([]service.Family{service.IPv4}, "net.ipv4.ip_forward")
		set("net/ipv4/ip_forward", "1")
		check(service.Families(), "net.ipv6.conf.all.forwarding")
		set("net/ipv6/conf/all/forwarding", "1")
		check(service.Families())
	})
}
