package kernel

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// TestMain stays in the initial user namespace when it runs as root: there the send buffer, and so a batch,
// can have any size. Other users get namespaces of their own.
func TestMain(m *testing.M) {
	if os.Geteuid() == 0 {
		os.Exit(m.Run())
	}
	lab.Main(m)
}

// testConn returns a Conn in a network namespace of its own.
func testConn(t testing.TB) *Conn {
	t.Helper()
	return testDial(t, lab.TestNamespace(t), Options{})
}

// testDial returns a Conn in the namespace.
func testDial(t testing.TB, ns *lab.Namespace, opts Options) (c *Conn) {
	t.Helper()
	err := ns.Do(func() (err error) {
		c, err = Dial(opts)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func mustCommit(t testing.TB, c *Conn, put func(*netlink.Batch)) {
	t.Helper()
	var b netlink.Batch
	put(&b)
	if err := c.Commit(&b); err != nil {
		t.Fatal(err)
	}
}

func mustGeneration(t testing.TB, c *Conn) uint32 {
	t.Helper()
	g, err := c.Generation()
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// mustApply makes the tables those of the ruleset.
func mustApply(t testing.TB, c *Conn, ruleset *rules.Ruleset) *rules.Delta {
	t.Helper()
	d := mustDiff(t, c, ruleset)
	if err := c.Apply(d); err != nil {
		t.Fatal(err)
	}
	return d
}

func mustDiff(t testing.TB, c *Conn, ruleset *rules.Ruleset) (d *rules.Delta) {
	t.Helper()
	d, err := c.Diff(service.Families(), func(rules.Slots) *rules.Ruleset { return ruleset })
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// putTable creates a table of another program.
func putTable(b *netlink.Batch) {
	appendTable(b, "another", service.IPv4, unix.NFT_MSG_NEWTABLE, 0)
}

// putChain creates a chain in the table of putTable.
func putChain(b *netlink.Batch) {
	b.Message(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, service.IPv4.Number())
	b.String(unix.NFTA_CHAIN_TABLE, "another")
	b.String(unix.NFTA_CHAIN_NAME, "chain")
}
