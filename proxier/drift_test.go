package proxier

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// TestDriftIsRepaired damages the tables in many ways; the daemon repairs them.
func TestDriftIsRepaired(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	ns := ownNamespace(t)
	startDaemon(t, webManifests(t, podA, podB), "--own-tables=false")
	eventually(t, ns, true, "goto cluster-2")
	nftIn(t, ns, "", "add", "table", "ip", "other") // of another program, to move the generation
	want := bytecode(t, ns)
	for _, damage := range []string{
		"flush ruleset",
		"delete table ip nftproxy",
		"flush chain ip nftproxy services",
		"insert rule ip nftproxy cluster-2 accept",
		"delete element ip nftproxy services { 10.96.0.10 . tcp . 80 }",
		"add element ip nftproxy services { 10.96.0.99 . tcp . 80 : 4c00:2 }",
		"flush set ip nftproxy cluster-ips",
		"delete element ip nftproxy endpoints { 10.96.0.10 . tcp . 80 . 0 }; " +
			"add element ip nftproxy endpoints { 10.96.0.10 . tcp . 80 . 0 : 10.244.9.9 . 1 }",
	} {
		nftIn(t, ns, strings.ReplaceAll(damage, "; ", "\n"), "-f", "-")
		deadline := time.Now().Add(20 * time.Second)
		for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			got, err := tryBytecode(ns)
			if err == nil && got == want {
				t.Logf("%s: repaired after %v", damage, time.Since(start).Round(time.Millisecond))
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("not repaired after %s:\n%s", damage, nftIn(t, ns, "", "list", "ruleset"))
			}
		}
	}
}

// TestOwnedTablesStay flushes the ruleset and deletes a table while the daemon owns its tables: they stay as
// they are, and nft can list them.
func TestOwnedTablesStay(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	ns := ownNamespace(t)
	startDaemon(t, webManifests(t, podA, podB))
	eventually(t, ns, true, "goto cluster-2")
	want := bytecode(t, ns)
	nftIn(t, ns, "", "flush", "ruleset")
	if _, err := ns.Nft("", "delete", "table", "ip", "nftproxy"); err == nil {
		t.Error("another process deleted the table")
	}
	if diff := cmp.Diff(want, bytecode(t, ns)); diff != "" {
		t.Errorf("the tables changed (-before +after):\n%s", diff)
	}
}

// TestRestartOwnsTables restarts the daemon in an unchanged cluster: it owns the tables from the start. What
// another process flushed while no daemon ran is healed by the next start.
func TestRestartOwnsTables(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	ns, dir := ownNamespace(t), webManifests(t, podA, podB)
	conn := dial(t, ns, kernel.Options{})
	untilOwned := func() {
		t.Helper()
		for _, f := range service.Families() {
			deadline := time.Now().Add(10 * time.Second)
			for {
				_, owner, _, err := conn.Table(f.Number(), nftables.TableName)
				if err != nil {
					t.Fatal(err)
				}
				if owner != 0 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("nobody owns the table of family %s", f)
				}
				time.Sleep(5 * time.Millisecond)
			}
		}
	}
	d := startDaemon(t, dir)
	untilOwned()
	want := bytecode(t, ns)
	d.stop()

	d = startDaemon(t, dir)
	untilOwned()
	nftIn(t, ns, "", "flush", "ruleset")
	if diff := cmp.Diff(want, bytecode(t, ns)); diff != "" {
		t.Errorf("after a restart without a change, a flush changed the tables (-before +after):\n%s", diff)
	}
	d.stop()

	nftIn(t, ns, "", "flush", "ruleset")
	if listing := nftIn(t, ns, "", "list", "ruleset"); listing != "" {
		t.Fatalf("without a daemon nobody owns the tables, and a flush leaves:\n%s", listing)
	}
	startDaemon(t, dir)
	untilOwned()
	if diff := cmp.Diff(want, bytecode(t, ns)); diff != "" {
		t.Errorf("not healed (-before +after):\n%s", diff)
	}
}

// BenchmarkRepair flushes the tables of 10,000 Services that nobody owns, and repairs them: from the check
// for drift, which comes within checkPeriod, to the commit.
func BenchmarkRepair(b *testing.B) {
	n := newBusyNode(b, 10_000, 0, kernel.Options{})
	n.sync(b)
	r := n.reconciler
	for b.Loop() {
		b.StopTimer()
		if out, err := n.ns.Nft("flush ruleset"); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		b.StartTimer()
		if err := n.ns.Do(func() error { r.checkDrift(); return nil }); err != nil {
			b.Fatal(err)
		}
		if r.due != drift {
			b.Fatalf("after a flush the next sync is due because of %s", r.due)
		}
		n.sync(b)
	}
}
