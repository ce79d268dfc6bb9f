package kernel

import (
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// TestDeleteStale deletes what another program put into the table: a map whose element leads to a chain, a
// rule that uses a set, and a rule that jumps to a chain.
func TestDeleteStale(t *testing.T) {
	ns := lab.TestNamespace(t)
	c := testDial(t, ns, Options{})
	r, _ := mustStart(t, c, stickyService(time.Hour, 1))
	mustNft(t, ns, `table ip nftproxy {
		set used { type ipv4_addr; }
		chain target { ip saddr @used counter; }
		chain jumps { jump target; }
		map leads { type ipv4_addr : verdict; elements = { 192.0.2.1 : jump target }; }
	}`)
	d := mustApply(t, c, r)
	if len(d.StaleChains) != 2 || len(d.StaleSets) != 2 {
		t.Fatalf("stale chains %v and sets %v, want two each", d.StaleChains, d.StaleSets)
	}
	if err := c.DeleteStale(d); err != nil {
		t.Fatal(err)
	}
	if d := mustDiff(t, c, r); !d.Empty() {
		t.Errorf("left over: chains %v, sets %v", d.StaleChains, d.StaleSets)
	}
}
