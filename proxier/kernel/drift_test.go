package kernel

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// TestCheckDrift checks after changes: the first check already knows our own changes, and the checks
// distinguish changes of other tables from drift.
func TestCheckDrift(t *testing.T) {
	ns := lab.TestNamespace(t)
	c, other := testDial(t, ns, Options{}), testDial(t, ns, Options{})
	ruleset := manyServices(3)
	check := func(occasion string, want Drift) {
		t.Helper()
		got, err := c.CheckDrift(ruleset)
		if err != nil || got != want {
			t.Errorf("%s: drift %v, error %v; want %v", occasion, got, err, want)
		}
	}
	mustCommit(t, other, putTable) // before the first sync
	mustApply(t, c, ruleset)
	check("after the first sync", Unchanged)
	check("again", Unchanged)
	mustCommit(t, other, putChain)
	check("another table", Unknown)
	check("checked already", Unchanged)
	mustCommit(t, other, putTable)
	mustApply(t, c, ruleset) // reads everything
	check("read meanwhile", Unchanged)
	mustCommit(t, other, func(b *netlink.Batch) {
		appendTable(b, nftables.TableName, service.IPv6, unix.NFT_MSG_DELTABLE, 0)
	})
	check("one of our tables", Drifted)
}

// TestMissingElement deletes elements behind our back. A check notices it where the kernel counts elements,
// since Linux 6.16. Otherwise the next full sync finds it.
func TestMissingElement(t *testing.T) {
	ns := lab.TestNamespace(t)
	c, want := testDial(t, ns, Options{}), manyServices(3)
	mustApply(t, c, want)
	sets, err := newReader(c, service.IPv4).layouts()
	if err != nil {
		t.Fatal(err)
	}
	noticed := Unknown
	if lab.Feature(t, "element-counts", sets["cluster-ips"].counted, 6, 16) {
		noticed = Drifted
	}
	mustNft(t, ns, "flush set ip nftproxy cluster-ips")
	if drift, err := c.CheckDrift(want); drift != noticed || err != nil {
		t.Errorf("drift %v, error %v; want %v", drift, err, noticed)
	}
	if d := mustApply(t, c, want); len(d.Add) != 3 || len(d.Reset) > 0 {
		t.Errorf("written: %+v, want the 3 elements", d)
	}
}
