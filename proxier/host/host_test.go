package host

import (
	"context"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"

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

// TestAddrs returns the addresses of all interfaces, without an IPv6 address that is tentative: br0 is down,
// so the kernel cannot probe for duplicates.
func TestAddrs(t *testing.T) {
	inNamespace(t, func(br0 netlink.Link) {
		addAddr(t, br0, "203.0.113.9/24")
		addAddr(t, br0, "192.0.2.1/24")
		addAddr(t, br0, "2001:db8::1/64")
		got, err := Addrs()
		if err != nil {
			t.Fatal(err)
		}
		var want []netip.Addr
		for _, text := range []string{"127.0.0.1", "192.0.2.1", "203.0.113.9", "::1"} {
			want = append(want, netip.MustParseAddr(text))
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("addresses (-want +got):\n%s", diff)
		}
	})
}

func TestWatchAddrs(t *testing.T) {
	inNamespace(t, func(br0 netlink.Link) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		calls := 0
		// WatchAddrs runs on this thread, and so in this namespace.
		err := WatchAddrs(ctx, func() {
			switch calls++; calls {
			case 1: // subscribed
				addAddr(t, br0, "192.0.2.1/24")
			case 2:
				addAddr(t, br0, "192.0.2.2/24")
			case 3:
				cancel()
			}
		})
		if err != nil || calls != 3 {
			t.Errorf("%d calls, %v, want 3", calls, err)
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
