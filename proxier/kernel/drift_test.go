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
