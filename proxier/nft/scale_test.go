package nft

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/rules"
)

// manyServices returns what n Services with 3 endpoints each want.
func manyServices(n int) *rules.Ruleset {
	ruleset := rules.NewRuleset(rules.Config{MasqueradeMark: 1 << 14, Families: rules.Families()})
	for i := range n {
		port := rules.ServicePort{Protocol: rules.TCP, Port: 80}
		for j := range 3 {
			pod := netip.AddrFrom4([4]byte{10, byte(128 + j + 3*(i>>16)), byte(i >> 8), byte(i)})
			port.Endpoints = append(port.Endpoints, rules.Endpoint{Backend: netip.AddrPortFrom(pod, 8080), Ready: true, Node: "node-b"})
		}
		ruleset.Put(rules.Compile(&rules.Service{
			Name:       rules.ServiceName{Namespace: "many", Name: fmt.Sprintf("s%d", i)},
			ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(96 + i>>16), byte(i >> 8), byte(i)})},
			Ports:      []rules.ServicePort{port},
		}, rules.Node{Name: "node-a"}, ruleset.Slots))
	}
	return ruleset
}

// TestManyServices programs 100,000 Services with 3 endpoints in one transaction.
// Outside the initial user namespace a message may not be as large: there the
// number is what fits.
func TestManyServices(t *testing.T) {
	c := testConn(t)
	services := 100_000
	limit, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	if err != nil {
		t.Fatal(err)
	}
	if fits := limit / 700; fits < services {
		services = fits
		t.Logf("a message may have %d bytes here: %d Services", limit, services)
	}
	program(t, c, manyServices(services))
}

// program applies the ruleset, which must be one transaction.
func program(t *testing.T, c *Conn, ruleset *rules.Ruleset) {
	t.Helper()
	d := rules.Diff(ruleset, rules.Programmed{})
	before, err := c.Generation()
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := c.Apply(d, before); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d elements in one transaction: %v", len(d.Add), time.Since(start))
	if after, err := c.Generation(); err != nil || after != before+1 {
		t.Errorf("%d transactions (error %v), want 1", after-before, err)
	}
}

// TestReadBack programs 5,000 Services and reads them back.
func TestReadBack(t *testing.T) {
	c, ruleset := testConn(t), manyServices(5_000)
	program(t, c, ruleset)
	for attempt := 0; ; attempt++ {
		// The kernel may still be resizing the sets: then a dump is not complete.
		snapshot, err := c.Read(rules.Families())
		if err != nil {
			t.Fatal(err)
		}
		programmed, err := snapshot.Compare(ruleset.Chains)
		if err != nil {
			t.Fatal(err)
		}
		left := rules.Diff(ruleset, programmed)
		if left.Empty() {
			return
		}
		if attempt == 20 {
			t.Fatalf("%d elements are missing and %d too many", len(left.Add), len(left.Delete))
		}
		time.Sleep(100 * time.Millisecond)
	}
}
