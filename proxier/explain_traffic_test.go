package proxier

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/desired"
	"github.com/nftproxy/nftproxy/proxier/explain"
	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// TestExplainTraffic opens connections through a frontend, removes an endpoint, and closes them: explain says
// how many the kernel has counted and how many are open, by endpoint.
func TestExplainTraffic(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	l, dir := newRegistry(t)
	serve(t, l, podC, podC6)
	dir.write(t, "endpoints.yaml", registryEndpoints(podA, podC, podA6, podC6))
	startDaemon(t, dir.dir)
	eventuallyHealthy(t)
	for _, target := range []string{"10.96.0.10:80", "[fd00:10:96::10]:80"} {
		t.Run(target, func(t *testing.T) {
			const flows = 8
			q := explain.Question{Target: target}
			before := ask(t, q)
			if before.Open == nil || before.Open.Connections != 0 || *before.Connections != 0 {
				t.Errorf("before: open %+v, counted %v, want 0", before.Open, before.Connections)
			}
			account(t, "0")
			closeAll := hold(t, l, target, flows-1)
			account(t, "1")
			closeOne := hold(t, l, target, 1)
			now := ask(t, q)
			hasDecision(t, now, "open", "8 connections")
			hasDecision(t, now, "counted", "8 connections")
			compareTraffic(t, now, flows)
			if o := now.Open; o.Counted != 1 || o.Packets < 4 || o.Bytes < 4*40 {
				t.Errorf("%+v: want counters of one connection", o)
			}
			closeAll()
			closeOne()
			eventuallyOpen(t, q, 0)
			if after := ask(t, q); *after.Connections != flows {
				t.Errorf("counted %d when closed, want %d", *after.Connections, flows)
			}
		})
	}
}

// TestExplainGoneEndpoint removes an endpoint to which connections are open: they stay, and explain shows
// them.
func TestExplainGoneEndpoint(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	l, dir := newRegistry(t)
	serve(t, l, podC)
	startDaemon(t, dir.dir)
	eventuallyHealthy(t)
	const target = "10.96.0.10:80"
	q := explain.Question{Target: target}
	defer hold(t, l, target, 3)()
	eventuallyOpen(t, q, 3)
	dir.write(t, "endpoints.yaml", registryEndpoints(podC))
	report := eventuallyExplains(t, q, func(r *explain.Report) bool { return r.Endpoints[0].Address == podC })
	if o := report.Open; o.Connections != 3 || len(o.Endpoints) != 1 || o.Endpoints[0].Address.String() != podA {
		t.Errorf("open %+v, want 3 at %s", o, podA)
	}
}

// TestExplainTrafficAlone asks the kernel after the daemon has stopped.
func TestExplainTrafficAlone(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	l, dir := newRegistry(t)
	d := startDaemon(t, dir.dir)
	eventuallyHealthy(t)
	const target = "10.96.0.10:80"
	defer hold(t, l, target, 2)()
	d.stop()
	conn, err := kernel.Dial(kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	e := desired.Environment{Config: rules.Config{Families: service.Families()}}
	inquiry := kernel.NewInquiry(conn, e.Config.Variants()...)
	report, err := explain.Alone(inquiry, explain.Wanted{Environment: e, Alone: errors.New("no daemon"),
		Traffic: explain.NewTraffic(t.Context(), inquiry.Counted)}, explain.Question{Target: target})
	if err != nil {
		t.Fatal(err)
	}
	hasDecision(t, report, "open", "2 connections")
	hasDecision(t, report, "counted", "2 connections")
}

// account sets whether the kernel counts packets of new connections.
func account(t *testing.T, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_acct", []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// hold opens TCP connections and returns what closes them. The server has said all that it has to say, so
// they are half closed.
func hold(t *testing.T, l *lab.Lab, target string, n int) (closeAll func()) {
	t.Helper()
	var flows []*lab.Flow
	for range n {
		f, err := l.Open("client", "tcp", netip.MustParseAddrPort(target))
		if err != nil {
			t.Fatal(err)
		}
		if r := f.Ask(); r.Outcome != lab.Answered {
			t.Fatalf("%s: %+v", target, r)
		}
		flows = append(flows, f)
	}
	return func() {
		for _, f := range flows {
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// compareTraffic compares what is open with what is counted, endpoint by endpoint.
func compareTraffic(t *testing.T, r *explain.Report, want int) {
	t.Helper()
	open := map[string]int{}
	sum := 0
	for _, e := range r.Open.Endpoints {
		open[e.Address.String()] = e.Connections
		sum += e.Connections
	}
	if sum != want || r.Open.Connections != want {
		t.Errorf("open: %+v, want %d", r.Open, want)
	}
	for _, e := range r.Endpoints {
		if e.Connections == nil || int(*e.Connections) != open[e.Address] {
			t.Errorf("counted %v to %s, open %v", e.Connections, e.Address, open)
		}
	}
}

func eventuallyOpen(t *testing.T, q explain.Question, want int) {
	t.Helper()
	eventuallyExplains(t, q, func(r *explain.Report) bool { return r.Open.Connections == want })
}

// eventually asks until the answer is as it should be.
func eventuallyExplains(t *testing.T, q explain.Question, right func(*explain.Report) bool) *explain.Report {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		r := ask(t, q)
		if right(r) {
			return r
		}
		if time.Now().After(deadline) {
			var b strings.Builder
			_ = r.WriteText(&b)
			t.Fatalf("after 10 s:\n%s", &b)
		}
	}
}
