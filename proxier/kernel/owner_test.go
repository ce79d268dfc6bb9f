package kernel

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// TestOwnedTable asks for tables that this process owns.
func TestOwnedTable(t *testing.T) {
	ns := lab.TestNamespace(t)
	err := ns.Do(func() error {
		owner := mustOwn(t)
		if lab.Feature(t, "owned-tables", owner.own, 6, 9) {
			testOwnedTable(t, owner)
		} else {
			testNotOwnedTable(t, owner)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// testNotOwnedTable deletes a table on a kernel before Linux 6.9, where tables do not persist without their
// owner: nftproxy does not own them, and the next sync writes what another process has deleted.
func testNotOwnedTable(t *testing.T, c *Conn) {
	mustApply(t, c, manyServices(2))
	other := mustOwn(t)
	mustCommit(t, other, func(b *netlink.Batch) {
		appendTable(b, nftables.TableName, service.IPv4, unix.NFT_MSG_DELTABLE, 0)
	})
	if d := mustApply(t, c, manyServices(2)); len(d.Tables) != 1 {
		t.Errorf("tables written after another process deleted one: %+v", d)
	}
	if d := mustDiff(t, other, manyServices(2)); !d.Empty() {
		t.Errorf("another nftproxy finds other tables: %+v", d)
	}
}

// testOwnedTable: no other process can change the tables, and flushing the ruleset leaves them alone. When the
// owner is gone the next one finds them unchanged and adopts them with its first change.
func testOwnedTable(t *testing.T, owner *Conn) {
	mustApply(t, owner, manyServices(2))
	other, err := Dial(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for _, msgType := range []uint16{unix.NFT_MSG_DELTABLE, unix.NFT_MSG_DELRULE} {
		var b netlink.Batch
		appendTable(&b, nftables.TableName, service.IPv4, msgType, 0)
		if err := other.Commit(&b); !errors.Is(err, unix.EPERM) {
			t.Errorf("message %d by another process: error %v, want EPERM", msgType, err)
		}
	}
	// nft flush ruleset deletes all tables except those that have an owner.
	mustCommit(t, other, func(b *netlink.Batch) { b.Message(unix.NFT_MSG_DELTABLE, 0, unix.AF_UNSPEC) })
	loseSocket(t, owner)
	if d := mustApply(t, owner, manyServices(3)); len(d.Tables) > 0 {
		t.Errorf("flushed, or not adopted again: %+v", d)
	}
	if err := owner.Close(); err != nil {
		t.Fatal(err)
	}

	next := mustOwn(t)
	before := mustGeneration(t, next)
	if d := mustApply(t, next, manyServices(3)); !d.Empty() {
		t.Errorf("the next owner finds other tables than the first one left: %+v", d)
	}
	if after := mustGeneration(t, next); after != before {
		t.Errorf("without a change the generation moved from %d to %d", before, after)
	}
	mustApply(t, next, manyServices(4))
	mustApply(t, next, manyServices(1))
	// Without Own, a Conn replaces the tables by tables without owner once the owner is gone.
	if err := next.Close(); err != nil {
		t.Fatal(err)
	}
	if d := mustApply(t, other, manyServices(1)); len(d.Reset) != 2 {
		t.Errorf("tables replaced: %v, want both", d.Reset)
	}
	if found, err := other.Cleanup(service.Families()); err != nil || len(found) != 2 {
		t.Errorf("cleaned up %v, error %v", found, err)
	}
}

// mustOwn returns a Conn that owns its tables if the kernel can do that.
func mustOwn(t *testing.T) *Conn {
	t.Helper()
	c, err := Dial(Options{Own: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// loseSocket makes the Conn close its socket, as after an error: the rest of a dump that stops is still in
// its queue.
func loseSocket(t *testing.T, c *Conn) {
	t.Helper()
	stop := errors.New("stop")
	err := c.Dump(unix.NFT_MSG_GETTABLE, service.IPv4.Number(), "", "", func([]byte) error { return stop })
	if !errors.Is(err, stop) {
		t.Fatalf("dump: %v, want %v", err, stop)
	}
}
