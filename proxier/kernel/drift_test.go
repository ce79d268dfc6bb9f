package kernel

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/rules/service"
)

// TestLook looks after changes: ours are known from the first one on, somebody else's are noticed, and told from
// drift by where they are.
func TestLook(t *testing.T) {
	c := testConn(t)
	other := testDial(t, c.opts.NetNS)
	ruleset := manyServices(3)
	check := func(occasion string, want Drift) {
		t.Helper()
		got, err := c.CheckDrift(Outline{Families: service.Families(), Chains: ruleset.Chains, Counts: ruleset.Counts})
		if err != nil || got != want {
			t.Errorf("%s: drift %v, error %v; want %v", occasion, got, err, want)
		}
	}
	mustCommit(t, other, putTable) // before we came
	c.mustApply(t, ruleset)
	check("after the first sync", Unchanged)
	check("again", Unchanged)
	mustCommit(t, other, putSet)
	check("another table", Unknown)
	check("looked at already", Unchanged)
	mustCommit(t, other, putTable)
	c.mustApply(t, ruleset) // which reads everything
	check("read meanwhile", Unchanged)
	var b Batch
	b.Begin(0)
	appendTable(&b, service.IPv6, unix.NFT_MSG_DELTABLE, 0)
	if err := other.Commit(&b); err != nil {
		t.Fatal(err)
	}
	check("a table of ours", Drifted)
}
