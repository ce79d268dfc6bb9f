package proxier

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nftproxy/nftproxy/internal/configtest"
	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/status"
)

// about returns the problem whose words contain a text.
func about(r *status.Report, text string) (status.Problem, bool) {
	for _, p := range r.Problems {
		if strings.Contains(p.What, text) {
			return p, true
		}
	}
	return status.Problem{}, false
}

// has checks whether the report of the Proxier has a problem, which began some time ago.
func (l *looping) has(want bool, text string, ago time.Duration) {
	l.t.Helper()
	report := l.status(l.t.Context(), status.Query{})
	p, found := about(report, text)
	if found != want || found && (p.Todo == "" || report.At.Sub(p.Since).Round(time.Second) != ago) {
		l.t.Errorf("a problem with %q: %v, want %v and %v ago, in %+v", text, found, want, ago, report.Problems)
	}
}

// TestSyncProblem lets syncs fail and succeed again.
func TestSyncProblem(t *testing.T) {
	inLoop(t, func(t *testing.T, l *looping) {
		l.has(false, "not programmed", 0)
		l.fail(unix.ENOBUFS, "Apply", "Diff")
		l.change()
		l.sleep(30 * time.Second)
		l.has(true, "Changes are not programmed: sync: no buffer space available", 30*time.Second)
		if r := l.status(t.Context(), status.Query{}); r.Summary.SyncError == "" || r.Summary.LastSyncAge < 30 {
			t.Errorf("summary %+v", r.Summary)
		}
		l.fail(nil, "Apply", "Diff")
		l.sleep(maxRetry)
		l.has(false, "not programmed", 0)
	})
}

// TestDriftProblem repairs tables that another process changed: that is news for a while.
func TestDriftProblem(t *testing.T) {
	inLoop(t, func(t *testing.T, l *looping) {
		l.damage()
		l.sleep(time.Minute)
		l.has(true, "another process changed nftproxy's tables: repaired 1 chains", time.Minute)
		if r := l.status(t.Context(), status.Query{}); r.Summary.DriftRepaired != 1 {
			t.Errorf("%d repairs, want 1", r.Summary.DriftRepaired)
		}
		l.sleep(driftIsNews)
		l.has(false, "another process", 0)
	})
}

// TestDriftCheckProblem loses the results of checks for drift.
func TestDriftCheckProblem(t *testing.T) {
	inLoop(t, func(t *testing.T, l *looping) {
		l.fail(errors.New("lost"), "CheckDrift", "Diff")
		l.sleep(time.Second)
		l.has(true, "Failed to check the tables for drift: lost", time.Second)
		l.fail(nil, "CheckDrift", "Diff")
		l.sleep(maxRetry)
		l.has(false, "lost", 0)
	})
}

// TestServiceProblems lets two Services claim an address, and one have an address that is none: the problems
// and the rows of the Services have it, and each as long as it lasts.
func TestServiceProblems(t *testing.T) {
	inLoop(t, func(t *testing.T, l *looping) {
		svc := func(name, clusterIP string, external ...string) *corev1.Service {
			return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
				Spec: corev1.ServiceSpec{ClusterIP: clusterIP, ExternalIPs: external,
					Ports: []corev1.ServicePort{{Port: 80}}}}
		}
		l.Apply(svc("a", "10.96.0.1", "203.0.113.1"))
		l.Apply(svc("b", "10.96.0.2", "203.0.113.1", "<b>203.0.113.2</b>"))
		l.sleep(time.Minute)
		taken := "Service default/b: 203.0.113.1 . tcp . 80 is taken by Service default/a"
		l.has(true, taken, time.Minute)
		l.has(true, "Service default/b: spec.externalIPs[1]", time.Minute)
		report := l.status(t.Context(), status.Query{Filter: "default/b"})
		if len(report.Rows) != 1 || len(report.Rows[0].Problems) != 2 || report.Summary.Conflicts != 1 ||
			report.Rows[0].Frontends[1].Owner != "default/a" {
			t.Errorf("rows %+v, %d conflicts", report.Rows, report.Summary.Conflicts)
		}
		l.Apply(svc("b", "10.96.0.2", "203.0.113.3"))
		l.sleep(time.Minute)
		l.has(false, "default/b", 0)
	})
}

// TestManyServiceProblems has more problems than a page: the report has the first of them, and the number of
// the others.
func TestManyServiceProblems(t *testing.T) {
	inLoop(t, func(t *testing.T, l *looping) {
		for i := range 100 {
			l.Apply(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("s%02d", i)},
				Spec: corev1.ServiceSpec{ClusterIP: fmt.Sprint("10.96.0.", i+1), ExternalIPs: []string{"none"},
					Ports: []corev1.ServicePort{{Port: 80}}}})
		}
		l.sleep(time.Second)
		r, listed := l.status(t.Context(), status.Query{}), 0
		for _, p := range r.Problems {
			if strings.HasPrefix(p.What, "Service ") {
				listed++
			}
		}
		if _, last := about(r, "default/s19"); listed != maxProblems || r.MoreProblems != 80 || !last {
			t.Errorf("%d problems and %d more: %+v", listed, r.MoreProblems, r.Problems)
		}
	})
}

// TestSourceProblems is about the API server: it cannot be read, and is not heard.
func TestSourceProblems(t *testing.T) {
	inLoop(t, func(t *testing.T, l *looping) {
		hear := func() {
			for _, resource := range []string{"endpointslices", "services"} {
				l.apiHeard(resource)
			}
		}
		hear()
		l.sleep(4 * time.Minute)
		l.has(false, "Nothing has come", 0)
		l.apiHeard("services")
		l.sleep(2 * time.Minute)
		l.has(true, "Nothing has come from the API server about endpointslices:", 6*time.Minute)
		hear()
		l.has(false, "Nothing has come", 0)
		l.apiFailed(errors.New("connection refused"))
		l.sleep(10 * time.Second)
		l.has(true, "the API server cannot be read: connection refused", 10*time.Second)
		l.apiRecovered("it answers again")
		l.has(false, "cannot be read", 0)
		l.apiFailed(errors.New("left out one event"))
		l.sleep(time.Second)
		l.apiHeard("services")
		l.has(true, "left out one event", time.Second)
		l.apiHeard("endpointslices") // all were heard since
		l.has(false, "left out one event", 0)
	})
}

// TestAddressesProblem lets the Node lose its addresses and get them back.
func TestAddressesProblem(t *testing.T) {
	inLoop(t, func(t *testing.T, l *looping) {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a"}}
		addresses := []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}}
		with := node.DeepCopy()
		with.Status.Addresses = addresses
		l.Apply(with)
		l.sleep(time.Second)
		l.has(false, "the Node has no addresses", 0)
		l.Apply(node)
		l.sleep(time.Minute)
		l.has(true, "the Node has no addresses any more: nodePorts and health checks stay", time.Minute)
		l.Apply(with)
		l.has(false, "the Node has no addresses", 0)
	})
}

// TestStatusWhileBusy asks while nothing was delivered, and during a sync that takes long: there is an answer
// within busyAfter, with what is known.
func TestStatusWhileBusy(t *testing.T) {
	o := Options{Config: configtest.Parse(t, "--source="+t.TempDir(), "--hostname-override=node-a")}
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, o)
		l.sleep(time.Minute)
		r := l.status(t.Context(), status.Query{})
		if p, found := about(r, "Nothing is programmed yet"); !found || p.Since.IsZero() || r.Busy == "" {
			t.Errorf("before the source has delivered everything: %+v", r)
		}
		l.set(func() { l.takes["Apply"] = time.Hour })
		l.Synced()
		l.change()
		l.sleep(time.Minute)
		began := time.Now()
		r = l.status(t.Context(), status.Query{})
		if took := time.Since(began); took != busyAfter || r.Busy != "a sync has been running for 1m1s" ||
			len(r.Rows) > 0 || r.Summary.Node != "node-a" || r.Total != 1 {
			t.Errorf("during a sync, after %v: %+v", took, r)
		}
		l.set(func() { l.takes["Apply"] = 0 })
		l.sleep(2 * time.Hour)
		if r = l.status(t.Context(), status.Query{}); r.Busy != "" || len(r.Rows) != 1 {
			t.Errorf("after the sync: %+v", r)
		}
	})
}

// TestDaemonProblems watches a running daemon: forwarding is turned off and on, another program damages the
// tables, the table of connection tracking fills up, the configuration file breaks, and a Service conflicts.
// All that passes is gone from the page afterwards.
func TestDaemonProblems(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	l := newLab(t, lab.Options{Here: true})
	conf := &daemon{dir: t.TempDir()}
	const valid = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: nftables\n" +
		"clusterCIDR: 10.244.0.0/16\nhostnameOverride: node-a\noomScoreAdj: 0\n"
	conf.write(t, "config.yaml", valid)
	tracking := &daemon{dir: t.TempDir()}
	if err := os.Mkdir(filepath.Join(tracking.dir, "netfilter"), 0o755); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, webManifests(t, podA), "--own-tables=false", "--sysctl-dir="+tracking.dir,
		"--config="+filepath.Join(conf.dir, "config.yaml"))
	eventually(t, l.Node(), true, "goto cluster-1")
	appears := func(text string) {
		t.Helper()
		awaitStatus(t, "", func(r *status.Report) bool { _, found := about(r, text); return found })
	}
	goes := func(text string) {
		t.Helper()
		awaitStatus(t, "", func(r *status.Report) bool { _, found := about(r, text); return !found })
	}
	awaitStatus(t, "", func(r *status.Report) bool { return len(r.Problems) == 0 })

	forward := func(value string) {
		t.Helper()
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	forward("0")
	appears("does not forward packets to pods and other nodes: 0 is the value of net.ipv4.ip_forward")
	off, _ := about(statusOf(t, ""), "does not forward")
	if off.Since.IsZero() {
		t.Error("it is not known since when the node does not forward packets")
	}
	forward("1")
	goes("does not forward")

	tracking.write(t, "netfilter/nf_conntrack_max", "1000\n")
	tracking.write(t, "netfilter/nf_conntrack_count", "960\n")
	appears("The table of connection tracking is full: 960 of 1000 flows")
	tracking.write(t, "netfilter/nf_conntrack_count", "900\n")
	goes("The table of connection tracking")

	conf.write(t, "config.yaml", valid+"clusterCIDRR: [\n")
	appears("the configuration file changed and cannot be used")
	conf.write(t, "config.yaml", valid)
	goes("the configuration file")

	d.write(t, "other.yaml", strings.NewReplacer("name: web", "name: zeta", "10.96.0.10", "10.96.0.77").
		Replace(webManifest))
	appears("192.0.2.1 . tcp . 30080 is taken by Service default/web")
	if err := os.Remove(filepath.Join(d.dir, "other.yaml")); err != nil {
		t.Fatal(err)
	}
	goes("is taken by")

	nftIn(t, l.Node(), "", "delete", "chain", "ip", "nftproxy", "nat-output")
	report := awaitStatus(t, "", func(r *status.Report) bool { return r.Summary.DriftRepaired == 1 })
	if _, found := about(report, "repaired 1 chains"); !found {
		t.Errorf("problems %+v", report.Problems)
	}
}
