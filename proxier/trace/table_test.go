package trace

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/service"
)

func TestMain(m *testing.M) { lab.Main(m) }

func selection(to string) Selection {
	at := netip.MustParseAddrPort(to)
	return Selection{For: time.Minute,
		To: service.Frontend{Addr: at.Addr(), Protocol: service.TCP, Port: at.Port()}}
}

// TestTable compares the tables with what nft says they are.
func TestTable(t *testing.T) {
	const chains = `	}

	chain input {
		type filter hook input priority 1073741824; policy accept;
	}

	chain postrouting {
		type filter hook postrouting priority 1073741824; policy accept;
	}
`
	from := selection("[fd00:10:96::10]:80")
	from.From, from.Local = netip.MustParseAddr("fd00::1"), true
	for want, s := range map[string]Selection{
		`table ip nftproxy-trace {
	set targets {
		type ipv4_addr . inet_proto . inet_service
		flags timeout
		elements = { 10.96.0.10 . tcp . 80 timeout 1m }
` + chains + `
	chain prerouting {
		type filter hook prerouting priority -350; policy accept;
		ip daddr . meta l4proto . th dport @targets limit rate 10/second burst 10 packets meta nftrace set 1
	}

	chain output {
		type filter hook output priority -350; policy accept;
		ip daddr . meta l4proto . th dport @targets limit rate 10/second burst 10 packets meta nftrace set 1
	}
}
`: selection("10.96.0.10:80"),
		`table ip6 nftproxy-trace {
	set targets {
		type ipv6_addr . ipv6_addr . inet_proto . inet_service
		flags timeout
		elements = { fd00::1 . fd00:10:96::10 . tcp . 80 timeout 1m }
` + chains + `
	chain output {
		type filter hook output priority -350; policy accept;
		ip6 saddr . ip6 daddr . meta l4proto . th dport @targets limit rate 10/second burst 10 packets ` +
			`meta nftrace set 1
	}
}
`: from,
	} {
		ns := lab.TestNamespace(t)
		commit(t, ns, s.table(0))
		got, err := ns.Nft("", "--stateless", "list", "ruleset")
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
	}
}

func commit(t *testing.T, ns *lab.Namespace, b *netlink.Batch) {
	t.Helper()
	err := ns.Do(func() error {
		c, err := netlink.Dial()
		if err != nil {
			return err
		}
		defer c.Close()
		return c.Commit(b)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestLeftover does what a kernel before Linux 5.12 does, which knows no owner of a table: after SIGKILL the
// table stays. Its element has a timeout, so that it traces nothing soon. The next trace replaces it, and
// cleanup removes it, but not that of a trace that runs if the table has an owner.
func TestLeftover(t *testing.T) {
	ns := lab.TestNamespace(t)
	s := selection("10.96.0.10:80")
	s.For = 100 * time.Millisecond
	commit(t, ns, s.table(0))
	deadline := time.Now().Add(10 * time.Second)
	for {
		out, err := ns.Nft("", "list", "set", "ip", TableName, targetSet)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out, "elements") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after 10 s: %s", out)
		}
		time.Sleep(10 * time.Millisecond)
	}
	err := ns.Do(func() error {
		running, err := Start(selection("10.96.0.11:80"))
		if err != nil {
			return err
		}
		_, owner, _, err := running.conn.Table(unix.NFPROTO_IPV4, TableName)
		if err != nil {
			return err
		}
		if found, err := Cleanup(); err != nil || (len(found) > 0) != (owner == 0) {
			t.Errorf("cleanup beside a trace that runs: %v, error %v; the owner is %d", found, err, owner)
		}
		return running.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
	commit(t, ns, s.table(0))
	err = ns.Do(func() error {
		found, err := Cleanup()
		if len(found) != 1 || found[0] != service.IPv4 {
			t.Errorf("cleanup found %v", found)
		}
		return err
	})
	if out, list := ns.Nft("", "list", "ruleset"); err != nil || list != nil || out != "" {
		t.Errorf("errors %v, %v; left: %s", err, list, out)
	}
}
