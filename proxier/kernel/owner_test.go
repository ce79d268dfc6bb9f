package kernel

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

func (c *Conn) mustApply(t *testing.T, ruleset *rules.Ruleset) *rules.Delta {
	t.Helper()
	snapshot, err := c.Read(service.Families())
	if err != nil {
		t.Fatal(err)
	}
	programmed, err := snapshot.Compare(ruleset.Chains)
	if err != nil {
		t.Fatal(err)
	}
	d := rules.Diff(ruleset, programmed)
	if err := c.Apply(d, snapshot.Generation); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestOwnedTable owns the tables: nobody else can change them, flushing the ruleset
// passes them by, and when the owner is gone the next one finds them as they were and
// adopts them with its first change.
func TestOwnedTable(t *testing.T) {
	netns := testNetNS(t)
	owner, err := Dial(Options{NetNS: netns, Own: true})
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close()
	if !owner.own {
		t.Fatal("the kernel has no tables that persist without their owner: Linux 6.9 is needed for this test")
	}
	owner.mustApply(t, manyServices(2))
	other := testDial(t, netns)
	for _, msgType := range []uint16{unix.NFT_MSG_DELTABLE, unix.NFT_MSG_DELRULE} {
		var b Batch
		b.Begin(0)
		appendTable(&b, service.IPv4, msgType, 0)
		if err := other.Commit(&b); !errors.Is(err, unix.EPERM) {
			t.Errorf("message %d by somebody else: error %v, want EPERM", msgType, err)
		}
	}
	// Everything is deleted but what has an owner: nft flush ruleset.
	var b Batch
	b.Begin(0)
	b.Message(unix.NFT_MSG_DELTABLE, 0, unix.AF_UNSPEC)
	if err := other.Commit(&b); err != nil {
		t.Fatal(err)
	}
	owner.drop() // the socket is lost, and opened again
	if d := owner.mustApply(t, manyServices(3)); len(d.Tables) > 0 {
		t.Errorf("flushed, or not adopted again: %+v", d)
	}
	if err := owner.Close(); err != nil {
		t.Fatal(err)
	}
	next, err := Dial(Options{NetNS: netns, Own: true})
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	before, err := next.Generation()
	if err != nil {
		t.Fatal(err)
	}
	if d := next.mustApply(t, manyServices(3)); !d.Empty() {
		t.Errorf("the next owner does not find what was there: %+v", d)
	}
	if after, err := next.Generation(); err != nil || after != before {
		t.Errorf("finding everything as it was moved the generation from %d to %d (error %v)", before, after, err)
	}
	next.mustApply(t, manyServices(4))
	next.mustApply(t, manyServices(1))
	// One that owns nothing replaces the table by one that nobody owns, once the owner is gone.
	if err := next.Close(); err != nil {
		t.Fatal(err)
	}
	if d := other.mustApply(t, manyServices(1)); len(d.Reset) != 2 {
		t.Errorf("tables replaced: %v, want both", d.Reset)
	}
	if found, err := other.Cleanup(service.Families()); err != nil || len(found) != 2 {
		t.Errorf("cleaned up %v, error %v", found, err)
	}
}
