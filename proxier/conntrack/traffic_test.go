package conntrack

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/rules/service"
)

// TestTraffic follows one client that sends all the time while its frontend appears, changes and disappears.
func TestTraffic(t *testing.T) {
	for _, family := range service.Families() {
		t.Run(family.String(), func(t *testing.T) {
			ns := lab.TestNamespace(t)
			to := in(family, clusterIP)
			servers := map[string]string{"host": clusterIP, "backend 1": backend1, "backend 2": backend2}
			for name, at := range servers {
				serve(t, ns, name, in(family, at))
			}
			stale := func(keep ...string) []service.StaleFlows {
				return staleOf(family, service.UDP, []staleText{{clusterIP, keep}})
			}
			c := dial(t, ns, to)
			for _, step := range []struct {
				name      string
				translate string               // the backend of the frontend from now on
				clean     []service.StaleFlows // nil: no cleaning
				deleted   int
				want      string // who answers
			}{
				{"before the frontend exists", "", nil, 0, "host"},
				{"it exists", backend1, nil, 0, "host"},
				{"and is cleaned", backend1, stale(backend1), 1, "backend 1"},
				{"its backend is replaced and terminates", backend2, stale(backend1, backend2), 0,
					"backend 1"},
				{"the backend is gone", backend2, stale(backend2), 1, "backend 2"},
				{"cleaned for no reason", backend2, stale(backend2), 0, "backend 2"},
				{"the frontend is gone", "", stale(), 1, "host"},
			} {
				translate(t, ns, family, to, step.translate)
				if step.clean != nil {
					deleted, _, err := cleanIn(ns, family, step.clean, true)
					if err != nil || deleted != step.deleted {
						t.Errorf("%s: deleted %d flows, error %v; want %d",
							step.name, deleted, err, step.deleted)
					}
				}
				if got := ask(t, c); got != step.want {
					t.Errorf("%s: answered by %s, want %s", step.name, got, step.want)
				}
			}
		})
	}
}

// serve answers every datagram at an address, which the namespace gets, with a name.
func serve(t *testing.T, ns *lab.Namespace, name string, at netip.AddrPort) {
	t.Helper()
	var conn *net.UDPConn
	err := ns.Do(func() (err error) {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		addr, err := netlink.ParseAddr(netip.PrefixFrom(at.Addr(), at.Addr().BitLen()).String())
		if err != nil {
			return err
		}
		addr.Flags = unix.IFA_F_NODAD // usable at once
		if err := netlink.AddrAdd(lo, addr); err != nil {
			return err
		}
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		return err
	})
	if err != nil {
		t.Fatalf("serve %s: %v", at, err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		for buf := make([]byte, 64); ; {
			_, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			conn.WriteToUDPAddrPort([]byte(name), from)
		}
	}()
	waitFor(t, ns, at)
}

// waitFor waits until a server answers: the kernel makes the route to a new IPv6 address in its own time.
func waitFor(t *testing.T, ns *lab.Namespace, at netip.AddrPort) {
	t.Helper()
	for range 1000 {
		c := dial(t, ns, at) // anew, since a socket keeps the route that it found
		if err := c.SetDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("there")); err != nil {
			continue
		}
		if _, err := c.Read(make([]byte, 64)); err == nil {
			return
		}
	}
	t.Fatalf("no answer from %s", at)
}

func dial(t *testing.T, ns *lab.Namespace, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	err := ns.Do(func() (err error) {
		conn, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// ask sends a datagram and returns the answer.
func ask(t *testing.T, c *net.UDPConn) string {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("who")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

// translate replaces the rules of the namespace; an empty backend leaves the frontend to the host.
func translate(t *testing.T, ns *lab.Namespace, family service.Family, to netip.AddrPort, backend string) {
	t.Helper()
	rule := ""
	if backend != "" {
		rule = fmt.Sprintf("%s daddr %s udp dport %d dnat to %s",
			family, to.Addr(), to.Port(), in(family, backend))
	}
	_, err := ns.Nft(fmt.Sprintf(`table %s test
delete table %[1]s test
table %[1]s test {
	chain output {
		type nat hook output priority -100
		%s
		ct state invalid counter # makes the kernel track flows, whatever rules there are
	}
}
`, family, rule))
	if err != nil {
		t.Fatal(err)
	}
}
