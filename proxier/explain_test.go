package proxier

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/internal/configtest"
	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/desired"
	"github.com/nftproxy/nftproxy/proxier/explain"
	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// TestExplainAgreesWithTraffic asks for each row of each traffic.yaml where its requests go: of the manifests,
// and of what the kernel has when they are programmed.
func TestExplainAgreesWithTraffic(t *testing.T) {
	for _, name := range cases(t, casesDir) {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(casesDir, name)
			manifests := filepath.Join(dir, "input.yaml")
			n := newNode(t, dir, manifests, lab.TestNamespace(t))
			n.load(t, manifests)
			n.sync(t)
			rows, err := lab.LoadTraffic(filepath.Join(dir, "traffic.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			config := n.reconciler.builder.Environment().Config
			for _, row := range rows {
				q := question(row, config.PodTraffic.Interface)
				judgeReport(t, row, n.explains(t, q, nil))
				report := n.explains(t, q, kernel.NewInquiry(n.conn, config))
				judgeReport(t, row, report)
				if len(report.Differences) > 0 {
					t.Errorf("%s: differences %q", row, report.Differences)
				}
			}
		})
	}
}

// explains answers a question as the daemon does, with the addresses of the Node object as those of the host.
func (n *node) explains(t *testing.T, q explain.Question, k explain.Kernel) *explain.Report {
	t.Helper()
	wanted, err := explain.Collect(n.reconciler.builder, n.state.Node().Addrs, q)
	if err != nil {
		t.Fatal(err)
	}
	report, err := explain.Explain(wanted, q, k)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// TestExplainFindsDifferences changes the tables behind the back of nftproxy: explain names what differs, and
// tells what the kernel does now.
func TestExplainFindsDifferences(t *testing.T) {
	const target = "default/web"
	for name, tt := range map[string]struct {
		nft     string
		want    string // a part of a difference
		verdict string
	}{
		"an endpoint is gone": {"delete element ip nftproxy endpoints { 10.96.0.10 . tcp . 80 . 1 }",
			"ip endpoints lacks { 10.96.0.10 . tcp . 80 . 1 : 10.244.2.11 . 8080 }", "refused"},
		"an endpoint is another one": {"delete element ip nftproxy endpoints { 10.96.0.10 . tcp . 80 . 1 }\n" +
			"add element ip nftproxy endpoints { 10.96.0.10 . tcp . 80 . 1 : 10.244.9.9 . 8080 }",
			"has { 10.96.0.10 . tcp . 80 . 1 : 10.244.9.9 . 8080 }", "endpoint"},
		"the frontend is gone": {"delete element ip nftproxy services { 10.96.0.10 . tcp . 80 }",
			"ip services lacks { 10.96.0.10 . tcp . 80", "refused"},
		"a firewall": {"add element ip nftproxy firewalled { 10.96.0.10 . tcp . 80 }",
			"ip firewalled has { 10.96.0.10 . tcp . 80 }, which is not wanted", "dropped"},
		"a chain has no rules": {"flush chain ip nftproxy cluster-2",
			"chain cluster-2 of table ip has other rules", "endpoint"},
		"the table is gone": {"delete table ip nftproxy", "the kernel has no table ip nftproxy", "endpoint"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(casesDir, "clusterip-tcp")
			ns := lab.TestNamespace(t)
			n := newNode(t, dir, filepath.Join(dir, "input.yaml"), ns)
			n.load(t, filepath.Join(dir, "input.yaml"))
			n.sync(t)
			nftIn(t, ns, tt.nft, "-f", "-")
			config := n.reconciler.builder.Environment().Config
			report := n.explains(t, explain.Question{Target: target}, kernel.NewInquiry(n.conn, config))
			if all := strings.Join(report.Differences, "; "); !strings.Contains(all, tt.want) {
				t.Errorf("differences %q, want one with %q", all, tt.want)
			}
			if report.ExitCode() != 2 || report.Verdict != tt.verdict {
				t.Errorf("exit code %d, verdict %s, want 2, %s", report.ExitCode(), report.Verdict, tt.verdict)
			}
		})
	}
}

// TestExplainDaemon asks a running daemon through its socket, before and after real connections with session
// affinity, and then the kernel alone.
func TestExplainDaemon(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	l, dir := newRegistry(t)
	serve(t, l, podC, podC6)
	dir.write(t, "web.yaml", strings.Replace(registryManifest, "type: NodePort", "type: NodePort\n  "+
		"sessionAffinity: ClientIP", 1))
	dir.write(t, "endpoints.yaml", registryEndpoints(podA, podC, podA6, podC6))
	startDaemon(t, dir.dir)
	eventuallyHealthy(t)
	for _, target := range []string{"10.96.0.10:80", "[fd00:10:96::10]:80"} {
		to := netip.MustParseAddrPort(target)
		client, _ := lab.Address("client", to.Addr())
		q := explain.Question{Target: target, From: client.String()}
		fresh := ask(t, q)
		if fresh.Verdict != "endpoint" || len(fresh.Endpoints) != 2 || fresh.ExitCode() != 0 {
			t.Errorf("%s: a new client: %+v", target, fresh)
		}
		hasDecision(t, fresh, "kernel", "as wanted")
		hasDecision(t, fresh, "sync", "succeeded")
		hasDecision(t, fresh, "affinity", "new client")
		by := l.Request("client", "tcp", to).By
		known := ask(t, q)
		if len(known.Endpoints) != 1 || lab.Owner(netip.MustParseAddr(known.Endpoints[0].Address)) != by {
			t.Errorf("%s: %s answered the client, the endpoints are %+v", target, by, known.Endpoints)
		}
		hasDecision(t, known, "affinity", "endpoint "+net.JoinHostPort(known.Endpoints[0].Address, "8080"))
	}
	bad, err := explain.Ask(t.Context(), explain.Question{Target: "nonsense"})
	if err == nil || !strings.Contains(err.Error(), "want namespace/name") {
		t.Errorf("nonsense: %+v, error %v", bad, err)
	}
}

func ask(t *testing.T, q explain.Question) *explain.Report {
	t.Helper()
	report, err := explain.Ask(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func hasDecision(t *testing.T, r *explain.Report, subject, result string) {
	t.Helper()
	for _, d := range r.Decisions {
		if d.Subject == subject && d.Result == result {
			return
		}
	}
	t.Errorf("no line %s %s in %+v", subject, result, r.Decisions)
}

// TestExplainAlone asks the kernel when no daemon answers: where connections go is the same.
func TestExplainAlone(t *testing.T) {
	dir := filepath.Join(casesDir, "all-kinds-one-service")
	manifests := filepath.Join(dir, "input.yaml")
	n := newNode(t, dir, manifests, lab.TestNamespace(t))
	n.load(t, manifests)
	n.sync(t)
	rows, err := lab.LoadTraffic(filepath.Join(dir, "traffic.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	// The configuration of nftproxy is not known either.
	e := desired.Environment{Config: rules.Config{Families: service.Families()}}
	inquiry := kernel.NewInquiry(n.conn, e.Config.Variants()...)
	if e.Config.PodTraffic.CIDRs, err = inquiry.PodCIDRs(service.Families()...); err != nil {
		t.Fatal(err)
	}
	alone := func(q explain.Question) *explain.Report {
		report, err := explain.Alone(inquiry, explain.Wanted{Environment: e, HostAddrs: n.state.Node().Addrs,
			Alone: errors.New("no daemon"), Unread: errors.New("no API server")}, q)
		if err != nil {
			t.Fatal(err)
		}
		return report
	}
	for _, row := range rows {
		judgeReport(t, row, alone(question(row, "")))
	}
	for target, code := range map[string]int{
		"default/all": 0, "default/all:80": 0, "30080": 0, "default/nonesuch": 3, "10.96.0.99:80": 3,
	} {
		report := alone(explain.Question{Target: target})
		if report.ExitCode() != code {
			t.Errorf("%s: exit code %d, want %d: %+v", target, report.ExitCode(), code, report.Decisions)
		}
		hasDecision(t, report, "daemon", "not asked")
	}
}

// TestExplainWhileBusy asks a daemon that has no objects yet, and one whose loop does not run.
func TestExplainWhileBusy(t *testing.T) {
	p, err := New(Options{Config: configtest.Case(t, "", t.TempDir())})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := p.explain(ctx, explain.Question{Target: "default/web"}); err == nil ||
		!strings.Contains(err.Error(), "busy") {
		t.Errorf("no loop: error %v, want one that says that the daemon is busy", err)
	}
	running, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { p.newReconciler(nil).run(running); close(done) }()
	if _, err := p.explain(t.Context(), explain.Question{Target: "default/web"}); err == nil ||
		!strings.Contains(err.Error(), "nothing is programmed yet") {
		t.Errorf("no objects: error %v", err)
	}
	stop()
	<-done
}

// question asks about the requests of a row. A pod is named by its address, unless it is the interface that
// shows that it is one.
func question(row lab.Row, podInterface string) explain.Question {
	q := explain.Question{Target: row.To.Addr.String() + "/" + row.To.Proto, From: "node"}
	if row.From == "node" || row.From == "host-pod" {
		return q
	}
	addr, _ := lab.Address(row.From, row.To.Addr.Addr())
	q.From = addr.String()
	if podInterface == "cni0" || podInterface == "veth-*" {
		if row.From == "pod-a" || row.From == "pod-b" {
			q.From = "pod"
		}
	}
	return q
}

func judgeReport(t *testing.T, row lab.Row, report *explain.Report) {
	t.Helper()
	want := "endpoint"
	switch owner := lab.Owner(row.To.Addr.Addr()); {
	case report.Verdict == "untouched":
		if owner == "" && !row.Dropped && !row.To.Addr.Addr().IsLoopback() {
			t.Errorf("%s: untouched", row)
		}
		return
	case row.Refused:
		want = "refused"
	case row.Dropped:
		want = "dropped"
	}
	if report.Verdict != want {
		t.Errorf("%s: verdict %s, want %s", row, report.Verdict, want)
	}
	var by []string
	for _, e := range report.Endpoints {
		by = append(by, lab.Owner(netip.MustParseAddr(e.Address)))
	}
	slices.Sort(by)
	if by = slices.Compact(by); !slices.Equal(by, slices.Sorted(slices.Values(row.By))) {
		t.Errorf("%s: endpoints %v, want %v", row, by, row.By)
	}
	if row.Source == "unchanged" && report.Source != "kept" ||
		row.Source == "node" && report.Source != "masqueraded" && row.From != "node" {
		t.Errorf("%s: source %s, want %s", row, report.Source, row.Source)
	}
}
