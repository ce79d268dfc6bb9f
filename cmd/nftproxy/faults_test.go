package main

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/internal/faults"
	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/netlink"
)

const troubleshooting = "../../docs/troubleshooting.md"

// elsewhere are the faults that need an API server: internal/e2e seeds them.
func elsewhere() []string {
	return []string{"nftproxy-does-not-run", "nftproxy-is-behind", "another-program-changed-the-tables"}
}

func tcpTo(addr string) lab.Target {
	return lab.Target{Proto: "tcp", Addr: netip.MustParseAddrPort(addr)}
}

// TestSeedsAreThePage compares the faults that tests seed with those of the page.
func TestSeedsAreThePage(t *testing.T) {
	all := slices.AppendSeq(elsewhere(), maps.Keys(seeds()))
	for _, name := range faults.Names() {
		if !slices.Contains(all, name) {
			t.Errorf("no test seeds %s", name)
		}
	}
	if len(all) != len(faults.Names()) {
		t.Errorf("%d seeds for %d faults", len(all), len(faults.Names()))
	}
}

// TestFaults seeds the faults of docs/troubleshooting.md one after the other on a node where nftproxy runs.
// Each does to connections what the page says, and the command of the page prints what the page says.
func TestFaults(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	page, err := faults.Read(troubleshooting)
	if err != nil {
		t.Fatal(err)
	}
	f := &faulty{T: t, lab: newFaultyLab(t)}
	startForFaults(t)
	steps, err := faults.Steps(troubleshooting)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range steps {
		f.holds(step)
	}
	ok := lab.Row{From: "pod-b", To: tcpTo("10.96.0.10:80"), By: []string{"pod-c"}, Source: "unchanged"}
	for _, name := range faults.Names() {
		s, ours := seeds()[name]
		if !ours || s.shows.From == "" {
			continue
		}
		if _, err := f.lab.Check(t.Context(), ok); err != nil {
			t.Fatalf("before %s: %v", name, err)
		}
		f.holds(faults.Fault{Name: "before " + name, Args: []string{"explain", "default/web"},
			Lines: []string{"...", "verdict endpoint: 10.244.2.11:8080"}})
		f.seed(s, page[name])
	}
}

// seed makes a fault, sees what it does to connections, runs the command of the page, and ends the fault.
func (f *faulty) seed(s seed, fault faults.Fault) {
	f.Helper()
	f.undo, f.unable = nil, ""
	defer func() {
		for _, undo := range slices.Backward(f.undo) {
			undo()
		}
	}()
	if s.make != nil {
		s.make(f)
	}
	if f.unable != "" {
		f.Logf("this does not show the fault %s: %s", fault.Name, f.unable)
		return
	}
	for _, row := range append([]lab.Row{s.shows}, s.works...) {
		if _, err := f.lab.Check(f.Context(), row); err != nil {
			f.Errorf("%s: %v", fault.Name, err)
		}
	}
	f.holdsWhile(s.shows, fault)
	if s.also != nil {
		s.also(f)
	}
}

// TestFaultWithoutNFTables runs nftproxy and the command of the page on a kernel without nftables.
func TestFaultWithoutNFTables(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	page, err := faults.Read(troubleshooting)
	if err != nil {
		t.Fatal(err)
	}
	f := &faulty{T: t}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		err := withoutNetfilter()
		if err == nil {
			if _, err = execute(t, "--source="+demo, "--hostname-override=node-a"); errors.Is(err, netlink.ErrAbsent) {
				err = nil
				f.holds(page["the-kernel-lacks-nftables"])
			}
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// holds runs the command of the page.
func (f *faulty) holds(fault faults.Fault) {
	f.Helper()
	out, err := execute(f.T, fault.Args...)
	if differs := fault.Differs(out); differs != "" {
		f.Errorf("%s: %s%v", fault.Name, differs, err)
	}
	if code := codeOf(err); code != fault.Exit {
		f.Errorf("%s: exit code %d, want %d", fault.Name, code, fault.Exit)
	}
}

// holdsWhile runs the command of the page. If that traces packets, a client makes requests meanwhile. It
// tries again if none was traced, as when this machine is busy.
func (f *faulty) holdsWhile(row lab.Row, fault faults.Fault) {
	f.Helper()
	if !slices.Contains(fault.Args, "--live") {
		f.holds(fault)
		return
	}
	fault.Args[slices.Index(fault.Args, "--live")+1] = "1s" // what the page gives a person is longer
	load := f.lab.Steady(f.Context(), row.From, row.To.Proto, row.To.Addr, 100*time.Millisecond)
	defer load.Stop()
	for range 9 {
		if out, _ := execute(f.T, fault.Args...); fault.Differs(out) == "" {
			return
		}
	}
	f.holds(fault)
}

// faulty is a node with faults.
type faulty struct {
	*testing.T
	lab    *lab.Lab
	undo   []func()
	unable string // why the fault cannot be made here; "": it was made
}

// newFaultyLab makes a node whose pods are on a bridge, and the servers of the pods.
func newFaultyLab(t *testing.T) *lab.Lab {
	t.Helper()
	l, err := lab.New(lab.Options{Here: true, Bridge: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for _, pod := range []string{"10.244.1.11", "10.244.1.12", "10.244.2.11", "10.244.2.12"} {
		if err := l.Serve(netip.AddrPortFrom(netip.MustParseAddr(pod), 8080), "tcp"); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// startForFaults runs nftproxy in this process until the test ends, and waits until it has programmed
// everything.
func startForFaults(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cmd, done := newCommand(), make(chan error, 1)
	cmd.SetArgs([]string{"--source=../../testdata/faults", "--hostname-override=node-a",
		"--cluster-cidr=10.244.0.0/16", "--oom-score-adj=0", "--allowed-external-cidrs=203.0.113.0/24"})
	go func() { done <- cmd.ExecuteContext(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("nftproxy ended with %v", err)
		}
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		answer, err := http.Get("http://127.0.0.1:10256/healthz")
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("nftproxy is not ready: %v", err)
		}
	}
}
