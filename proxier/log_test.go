package proxier

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/service"
)

// logged collects what is logged until the end of the test.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// captureLog collects the log at a verbosity.
func captureLog(t *testing.T, verbosity string) *logged {
	t.Helper()
	l := &logged{}
	var flags flag.FlagSet
	klog.InitFlags(&flags)
	if err := flags.Set("v", verbosity); err != nil {
		t.Fatal(err)
	}
	klog.SetSlogLogger(slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug})))
	t.Cleanup(func() {
		klog.ClearLogger()
		_ = flags.Set("v", "0")
	})
	return l
}

// lines returns the lines with a text since the last call, and forgets all lines.
func (l *logged) lines(text string) (found []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		if strings.Contains(line, text) {
			found = append(found, line)
		}
	}
	l.text.Reset()
	return found
}

// expect checks how many lines were logged since the last call: of all, and with a text.
func (l *logged) expect(t *testing.T, what string, all int, text string) {
	t.Helper()
	l.mu.Lock()
	got := l.text.String()
	l.mu.Unlock()
	if n, with := strings.Count(got, "\n"), len(l.lines(text)); n != all || with != all {
		t.Errorf("%s: %d lines, %d with %q; want %d:\n%.3000s", what, n, with, text, all, got)
	}
}

// TestSyncLines changes Services for ten minutes: by default no line is logged about that, and one about the
// first sync and about each repair. At -v=2 each sync has its line.
func TestSyncLines(t *testing.T) {
	for _, test := range []struct {
		verbosity string
		changes   int
	}{{"0", 0}, {"2", 700}} {
		log := captureLog(t, test.verbosity)
		inLoop(t, func(t *testing.T, l *looping) {
			log.expect(t, "start", 1, "Synced")
			for range 700 {
				l.change()
				l.sleep(time.Minute / 70)
			}
			log.expect(t, "changes", test.changes, "Synced")
			l.damage()
			l.sleep(time.Second)
			if n := len(log.lines("Synced")); n != 1 {
				t.Errorf("%d lines about a repair, want 1", n)
			}
		})
	}
}

// TestStartInSync starts with a kernel that has everything: a line says so.
func TestStartInSync(t *testing.T) {
	log := captureLog(t, "0")
	newScripted(t)
	log.expect(t, "start", 1, "In sync, there was nothing to write")
}

// TestErrorLines lets syncs fail. A condition that passes is an error when it has lasted; any other error is
// one at once. An error that stays is logged once a minute, however many changes try again.
func TestErrorLines(t *testing.T) {
	log := captureLog(t, "0")
	inLoop(t, func(t *testing.T, l *looping) {
		log.lines("")
		failFor := func(err error, d time.Duration) {
			l.fail(err, "Apply", "Diff")
			for range d / time.Second {
				l.change()
				l.sleep(time.Second)
			}
		}
		failFor(netlink.ErrInterrupted, patience-time.Second)
		log.expect(t, "interrupted for 9 s", 0, "")
		failFor(nil, 10*time.Second)
		log.expect(t, "over", 0, "")
		failFor(netlink.ErrInterrupted, patience+5*time.Second)
		log.expect(t, "interrupted for 15 s", 1, "level=ERROR")
		failFor(nil, 10*time.Second)
		log.expect(t, "over", 1, "level=INFO msg=Synced")
		failFor(unix.ENOBUFS, time.Second)
		log.expect(t, "no buffers for 1 s", 1, `level=ERROR msg="Sync failed"`)
		failFor(unix.ENOBUFS, 2*time.Minute)
		log.expect(t, "no buffers for 2 more minutes", 2, "level=ERROR")
		failFor(unix.EPERM, 2*time.Second)
		log.expect(t, "another error", 1, "level=ERROR")
	})
}

// TestDriftCheckLines lets checks for drift fail.
func TestDriftCheckLines(t *testing.T) {
	log := captureLog(t, "0")
	inLoop(t, func(t *testing.T, l *looping) {
		log.lines("")
		l.fail(netlink.ErrInterrupted, "CheckDrift")
		l.sleep(patience - time.Second)
		log.expect(t, "interrupted for 9 s", 0, "")
		l.sleep(30 * time.Second)
		log.expect(t, "interrupted for 39 s", 1, "Failed to check the tables for drift")
	})
}

// faulty returns a Service with a ClusterIP that is invalid unless it is corrected.
func faultyService(i int, corrected bool) *corev1.Service {
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("faulty-", i)},
		Spec: corev1.ServiceSpec{ClusterIP: fmt.Sprintf("10.96.%d.%d", i/250, i%250), Ports: []corev1.ServicePort{
			{Port: 80}}, ExternalIPs: []string{"nonsense"}}}
	if corrected {
		svc.Spec.ExternalIPs = nil
	}
	return svc
}

// TestInvalidManifests has 20,000 manifests that cannot be decoded: the daemon logs a part of the lines, and
// a summary.
func TestInvalidManifests(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	log, dir := captureLog(t, "0"), webManifests(t, podA)
	d := &daemon{dir: dir}
	d.write(t, "bad.yaml", strings.Repeat("---\napiVersion: v1\nkind: Service\nmetadata: []\n", 20000))
	startDaemon(t, dir)
	eventually(t, ownNamespace(t), true, "goto cluster-1")
	var text string
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(text, "msg=\"More objects are inv"); {
		if time.Sleep(20 * time.Millisecond); time.Now().After(deadline) {
			t.Fatalf("no summary:\n%.3000s", text)
		}
		log.mu.Lock()
		text = log.text.String()
		log.mu.Unlock()
	}
	if n := strings.Count(text, "Skipped invalid object"); n != lineBurst {
		t.Errorf("%d lines, want %d", n, lineBurst)
	}
	if want := fmt.Sprint("leftOut=", 20000-lineBurst); !strings.Contains(text, want) {
		t.Errorf("the summary lacks %s:\n%.3000s", want, text)
	}
}

// TestFaultyServices has 20,000 Services with a problem: a part of the lines and a summary are logged, and
// nothing again at the next full syncs. A problem that comes back is logged again. At -v=2 each has its line.
func TestFaultyServices(t *testing.T) {
	const count = 20000
	const line = "Service has a problem"
	for _, test := range []struct {
		verbosity string
		want      int
	}{{"0", lineBurst}, {"2", count}} {
		log := captureLog(t, test.verbosity)
		r, s := newScripted(t)
		log.lines("")
		for i := range count {
			r.Apply(faultyService(i, false))
		}
		mustSync(t, r, s, false)
		if n := len(log.lines(line)); n != test.want {
			t.Errorf("-v=%s: %d lines, want %d", test.verbosity, n, test.want)
		}
		r.reopenPorts()
		if summary := fmt.Sprint("services=", count, " leftOut=", count-lineBurst); test.verbosity == "0" {
			log.expect(t, "summary", 1, summary)
		}
		for range 3 {
			r.require(suspicion)
			mustSync(t, r, s, true)
		}
		if lines := log.lines(line); len(lines) > 0 {
			t.Errorf("-v=%s: %d lines at full syncs", test.verbosity, len(lines))
		}
		for _, corrected := range []bool{true, false} {
			r.Apply(faultyService(7, corrected))
			mustSync(t, r, s, false)
		}
		if n := len(log.lines(line)) + r.events.lines.leftOut; n != 1 {
			t.Errorf("-v=%s: a problem that came back is reported %d times, want once", test.verbosity, n)
		}
	}
}

// TestFlowErrorLines lets the deletion of stale flows fail after each of many syncs.
func TestFlowErrorLines(t *testing.T) {
	r, _ := newScripted(t)
	log := captureLog(t, "0")
	r.cleanup.flows[service.Frontend{Protocol: service.UDP, Port: 53}] = service.Name{Namespace: "a", Name: "b"}
	r.deleteFlows = func(_ context.Context, f service.Family, _ []service.StaleFlows) (
		int, []service.Frontend, error) {
		return 0, nil, fmt.Errorf("delete stale udp flows of %s: %w", f, unix.EMFILE)
	}
	for range 100 {
		r.startSweep(t.Context())
		r.awaitSweep()
	}
	log.expect(t, "100 failures", 1, "Failed to delete stale flows, will retry")
}

// TestNodeEventsAreNotCrowdedOut reports something about the Node after many problems of Services.
func TestNodeEventsAreNotCrowdedOut(t *testing.T) {
	captureLog(t, "0")
	e := newEventer("node-a")
	for i := range 1000 {
		e.reportService(service.Name{Namespace: "default", Name: fmt.Sprint(i)}, "NotProgrammed", "")
	}
	e.reportNode(corev1.EventTypeWarning, reasonConfigInvalid, "")
	events := queued(e)
	if n := len(events); n != eventBurst+1 || events[n-1].Reason != reasonConfigInvalid {
		t.Errorf("%d Events are queued, want %d about Services and one about the Node", n, eventBurst)
	}
}
