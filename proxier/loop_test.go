package proxier

import (
	"errors"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nftproxy/nftproxy/internal/configtest"
	"github.com/nftproxy/nftproxy/internal/lab"
)

// TestNothingBeforeSynced delivers objects: the reconciler does not use the kernel before the source has
// delivered all of them, and syncs at once then.
func TestNothingBeforeSynced(t *testing.T) {
	o := Options{Config: configtest.Case(t, "", t.TempDir())}
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, o)
		for range 10 {
			l.change()
			l.sleep(time.Minute)
		}
		synctest.Wait()
		if len(l.calls) > 0 {
			t.Errorf("the kernel was called: %v", l.calls)
		}
		l.Synced()
		l.check("first sync", l.when("Apply"), 10*time.Minute)
		l.Synced() // a source may call it again
	})
}

// TestPauses sends bursts of changes: the first is programmed at once, the others together, after the pause.
func TestPauses(t *testing.T) {
	for _, tt := range []struct {
		name     string
		args     []string
		applying time.Duration
		want     []time.Duration // when transactions begin, with a change every 3 ms for 2.4 s
		first    int             // how many of the transactions are compared; 0 is all
	}{
		{name: "own pause", first: 4, want: []time.Duration{0, 10 * ms, 20 * ms, 30 * ms}},
		{name: "own pause adapts", applying: 60 * ms, first: 3, want: []time.Duration{0, 120 * ms, 240 * ms}},
		{name: "configured", args: []string{"--iptables-min-sync-period=1s"}, applying: 300 * ms,
			want: []time.Duration{0, 1000 * ms, 2000 * ms, 3000 * ms}},
		{name: "configured to less than a sync takes", args: []string{"--iptables-min-sync-period=50ms"},
			applying: 600 * ms,
			want:     []time.Duration{0, 600 * ms, 1200 * ms, 1800 * ms, 2400 * ms}},
		{name: "configured to none", args: []string{"--iptables-min-sync-period=0"}, first: 4,
			want: []time.Duration{0, 3 * ms, 6 * ms, 9 * ms}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inLoop(t, func(t *testing.T, l *looping) {
				l.set(func() { l.takes["Apply"] = tt.applying })
				for range 800 {
					l.change()
					l.sleep(3 * ms)
				}
				l.sleep(5 * time.Second)
				before := l.when("Apply")
				if tt.first == 0 {
					tt.first = len(before)
				}
				l.check("transactions", before[:tt.first], tt.want...)
				l.change() // after a quiet time: at once
				l.sleep(5 * time.Second)
				l.check("transactions after a quiet time", l.when("Apply")[len(before):], 7400*ms)
				l.check("full syncs", l.when("Diff"))
			}, tt.args...)
		})
	}
}

// TestNothingToDo wakes the reconciler without a change.
func TestNothingToDo(t *testing.T) {
	inLoop(t, func(t *testing.T, l *looping) {
		l.Apply(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a"}})
		l.Apply(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-b"}})
		l.sleep(10 * time.Second)
		l.check("transactions", l.when("Apply"))
		l.check("full syncs", l.when("Diff"))
	})
}

// TestRetries lets transactions fail: full syncs retry them at growing intervals, up to maxRetry; after a
// success the intervals start again at minRetry.
func TestRetries(t *testing.T) {
	inLoop(t, func(t *testing.T, l *looping) {
		want := []time.Duration{0, 100 * ms, 300 * ms, 700 * ms, 1500 * ms, 3100 * ms, 6300 * ms, 12700 * ms,
			22700 * ms, 32700 * ms}
		for _, failing := range [][]string{{"Apply"}, {"Apply", "Diff"}} {
			l.fail(unix.ENOBUFS, failing...)
			l.restart()
			l.change()
			l.sleep(35 * time.Second)
			// The first is a change, the others are full syncs.
			l.check("tried", slices.Concat(l.when("Apply")[:1], l.when("Diff")), want...)
			if !l.Healthy() {
				t.Error("unhealthy after 35 s")
			}
			l.fail(nil, failing...)
			l.sleep(10 * time.Second)
			l.check("recovered", l.when("Diff"), append(want[1:], 42700*ms)...)
			l.restart()
			l.sleep(time.Minute)
			l.check("tried when there was nothing to do", l.when("Diff"))
		}
	})
}

// TestRetriesAreBounded lets transactions fail while changes come in: syncs are not more frequent than the
// pause between them allows.
func TestRetriesAreBounded(t *testing.T) {
	inLoop(t, func(t *testing.T, l *looping) {
		l.set(func() { l.takes["Apply"] = 50 * ms })
		l.fail(unix.ENOBUFS, "Apply")
		for range 10000 {
			l.change()
			l.sleep(ms)
		}
		if n := len(l.when("Apply")); n < 10 || n > 110 {
			t.Errorf("tried %d times in 10 s, each taking 50 ms", n)
		}
	})
}

// TestHealth lets syncs fail: after twice the syncPeriod the proxy is unhealthy, whatever the reason of the
// sync, until a sync succeeds.
func TestHealth(t *testing.T) {
	for name, cause := range map[string]func(l *looping){
		"a change": (*looping).change,
		"drift":    (*looping).damage,
	} {
		t.Run(name, func(t *testing.T) {
			inLoop(t, func(t *testing.T, l *looping) {
				l.sleep(time.Hour)
				if !l.Healthy() {
					t.Error("unhealthy with nothing to do")
				}
				l.fail(unix.EPERM, "Apply", "Diff")
				cause(l)
				l.sleep(59 * time.Second)
				if !l.Healthy() {
					t.Error("unhealthy before 2*syncPeriod")
				}
				l.sleep(2 * time.Second)
				if l.Healthy() {
					t.Error("healthy after 2*syncPeriod")
				}
				l.fail(nil, "Apply", "Diff")
				l.sleep(maxRetry)
				if !l.Healthy() {
					t.Error("unhealthy after a sync that succeeded")
				}
			}, "--iptables-sync-period=30s")
		})
	}
}

// TestDriftChecks waits for drift: the reconciler checks for it every checkPeriod, and repairs it at once.
func TestDriftChecks(t *testing.T) {
	inLoop(t, func(t *testing.T, l *looping) {
		l.sleep(10*time.Second - ms)
		if n := len(l.when("CheckDrift")); n != 99 && n != 100 {
			t.Errorf("checked %d times in 10 s, want 100", n)
		}
		l.check("full syncs", l.when("Diff"))
		l.damage()
		l.sleep(time.Second)
		l.check("drift", l.when("Diff"), 10*time.Second)

		l.restart()
		l.writeElsewhere()
		l.sleep(10 * time.Minute)
		if diffs := l.when("Diff"); len(diffs) != 1 {
			t.Errorf("a single suspicion: full syncs at %v", diffs)
		}
	})
}

// TestSuspicion lets another process write to its tables all the time: full syncs make sure of ours, but no
// more often than every comparePeriod, and for no more than one part in compareShare of the time. Changes to
// the tables of others are not reported as drift of ours.
func TestSuspicion(t *testing.T) {
	for _, tt := range []struct {
		diffing time.Duration
		want    int // full syncs in 10 minutes
	}{{0, 115}, {400 * ms, 7}} {
		t.Log("a Diff takes", tt.diffing)
		inLoop(t, func(t *testing.T, l *looping) {
			l.set(func() { l.takes["Diff"], l.unrest = tt.diffing, true })
			for range 600 {
				l.change()
				l.sleep(time.Second)
			}
			if n := len(l.when("Diff")); n < tt.want-1 || n > tt.want+5 {
				t.Errorf("%d full syncs in 10 minutes, each taking %v; want about %d", n, tt.diffing, tt.want)
			}
			checkMetric(t, l.Proxier, "nftproxy_drift_repaired_total", 0)
			l.set(func() { l.unrest = false })
			l.damage()
			l.sleep(time.Minute)
			checkMetric(t, l.Proxier, "nftproxy_drift_repaired_total", 1)
		})
	}
}

// TestDriftCheckFails loses the result of a check: a full sync must find out.
func TestDriftCheckFails(t *testing.T) {
	inLoop(t, func(t *testing.T, l *looping) {
		l.sleep(10*time.Second - ms)
		l.restart()
		l.fail(errors.New("lost"), "CheckDrift")
		l.sleep(ms)
		l.fail(nil, "CheckDrift")
		l.sleep(5 * time.Second)
		l.check("full syncs", l.when("Diff"), ms)
	})
}

// TestLeftovers lets a cleanup fail: a full sync follows after cleanupPeriod, however many changes there are
// until then, and drift is repaired meanwhile.
func TestLeftovers(t *testing.T) {
	inLoop(t, func(t *testing.T, l *looping) {
		l.fail(unix.EBUSY, "DeleteStale")
		l.change()
		synctest.Wait()
		l.fail(nil, "DeleteStale")
		for range 50 {
			l.sleep(700 * ms)
			l.change()
		}
		l.check("full syncs", l.when("Diff"), 30*time.Second)

		l.restart()
		l.fail(unix.EBUSY, "DeleteStale")
		l.change()
		l.sleep(time.Second)
		l.fail(nil, "DeleteStale")
		l.damage()
		l.sleep(time.Second)
		if diffs := l.when("Diff"); len(diffs) != 1 {
			t.Errorf("drift while something is left over: repaired at %v", diffs)
		}
	})
}

// TestAddresses changes the host's addresses: only those that serve nodePorts matter.
func TestAddresses(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	o := Options{Config: configtest.Parse(t, "--source="+t.TempDir(), "--hostname-override=node-a",
		"--nodeport-addresses=192.0.2.0/24,2001:db8:1::/64")}
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, o)
		l.Synced()
		l.sleep(time.Second)
		for _, step := range []struct {
			addr string
			want int
		}{{"10.1.1.1", 0}, {"192.0.2.1", 1}, {"2001:db8::1", 0}, {"192.0.2.2", 1}} {
			l.restart()
			addAddress(t, step.addr)
			signal(l.address)
			l.sleep(time.Second)
			if n := len(l.when("Diff")); n != step.want {
				t.Errorf("%s: %d full syncs, want %d", step.addr, n, step.want)
			}
		}
		l.fail(unix.EPERM, "Apply", "Diff")
		l.restart()
		l.change()
		for range 1000 {
			l.sleep(ms)
			signal(l.address)
		}
		l.check("tried, while addresses that do not matter come and go", l.when("Diff"),
			100*ms, 300*ms, 700*ms)
	})
}

func addAddress(t *testing.T, text string) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	ip := net.ParseIP(text)
	bits := 128
	if ip.To4() != nil {
		bits = 32
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: net.CIDRMask(bits, bits)}, Flags: unix.IFA_F_NODAD}
	if err := netlink.AddrAdd(lo, addr); err != nil {
		t.Fatal(err)
	}
}

// TestLoopStops ends the reconciler's context whatever it does at that moment: it returns at once, and does
// not use the kernel any more.
func TestLoopStops(t *testing.T) {
	for name, doing := range map[string]func(l *looping){
		"idle":     func(*looping) {},
		"in pause": func(l *looping) { l.change(); l.sleep(ms); l.change() },
		"retrying": func(l *looping) { l.fail(unix.EPERM, "Apply"); l.change(); l.sleep(time.Minute) },
	} {
		t.Run(name, func(t *testing.T) {
			for range 10 {
				inLoop(t, func(t *testing.T, l *looping) {
					doing(l)
					synctest.Wait()
					before, at := len(l.when("Apply")), time.Now()
					l.stop()
					<-l.done
					if took := time.Since(at); took > 0 {
						t.Errorf("it took %v", took)
					}
					if n := len(l.when("Apply")) - before; n > 0 {
						t.Errorf("%d transactions after the end", n)
					}
				}, "--iptables-min-sync-period=30s")
			}
		})
	}
	t.Run("before the source has delivered everything", func(t *testing.T) {
		o := Options{Config: configtest.Case(t, "", t.TempDir())}
		synctest.Test(t, func(t *testing.T) {
			l := startLoop(t, o)
			l.stop()
			<-l.done
		})
	})
}
