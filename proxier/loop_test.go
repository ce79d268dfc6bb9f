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

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/nft"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// TestNothingBeforeSynced delivers objects: the kernel is not touched before the
// source has all of them, and at once then.
func TestNothingBeforeSynced(t *testing.T) {
	o := Options{Config: caseConfig(t, "", t.TempDir())}
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, o)
		for range 10 {
			l.change()
			l.sleep(time.Minute)
		}
		synctest.Wait()
		if n := len(l.reads) + len(l.applies) + len(l.looks) + len(l.tidies); n > 0 {
			t.Errorf("the kernel was called %d times", n)
		}
		l.Synced()
		l.check("first sync", &l.applies, 10*time.Minute)
		l.Synced() // the source may say so again
	})
}

// TestPauses sends bursts of changes: the first is programmed at once, the others
// together, after the pause.
func TestPauses(t *testing.T) {
	for _, tt := range []struct {
		name  string
		args  []string
		takes time.Duration
		want  []time.Duration // when transactions begin, with a change every 3 ms for 2.4 s
		first int             // compared are the first so many
	}{
		{name: "own pause", first: 4, want: []time.Duration{0, 10 * ms, 20 * ms, 30 * ms}},
		{name: "own pause adapts", takes: 60 * ms, first: 3, want: []time.Duration{0, 120 * ms, 240 * ms}},
		{name: "configured", args: []string{"--iptables-min-sync-period=1s"}, takes: 300 * ms, want: []time.Duration{0, 1000 * ms, 2000 * ms, 3000 * ms}},
		{name: "configured to less than it takes", args: []string{"--iptables-min-sync-period=50ms"}, takes: 600 * ms,
			want: []time.Duration{0, 600 * ms, 1200 * ms, 1800 * ms, 2400 * ms}},
		{name: "configured to none", args: []string{"--iptables-min-sync-period=0"}, first: 4, want: []time.Duration{0, 3 * ms, 6 * ms, 9 * ms}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inLoop(t, func(t *testing.T, l *looping) {
				l.tell(func() { l.takes = tt.takes })
				for range 800 {
					l.change()
					l.sleep(3 * ms)
				}
				l.sleep(5 * time.Second)
				if tt.first == 0 {
					tt.first = len(l.applies)
				}
				first := l.applies[:tt.first]
				l.check("transactions", &first, tt.want...)
				last := len(l.applies)
				l.change() // after silence, at once
				l.sleep(5 * time.Second)
				if now := l.applies[last:]; !slices.Equal(now, []time.Duration{7400 * ms}) {
					t.Errorf("a change at 7.4 s was programmed at %v", now)
				}
				if len(l.reads) > 0 {
					t.Errorf("the kernel was read at %v", l.reads)
				}
			}, tt.args...)
		})
	}
}

// TestNothingToDo wakes the loop for nothing.
func TestNothingToDo(t *testing.T) {
	inLoop(t, func(t *testing.T, l *looping) {
		l.Apply(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a"}})
		l.Apply(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-b"}})
		l.sleep(10 * time.Second)
		l.check("transactions", &l.applies)
		l.check("readings", &l.reads)
	})
}

// TestRetries has transactions fail: they are tried again at growing intervals, up to
// maxRetry, from what is read; after one that worked, it begins anew.
func TestRetries(t *testing.T) {
	inLoop(t, func(t *testing.T, l *looping) {
		want := []time.Duration{0, 100 * ms, 300 * ms, 700 * ms, 1500 * ms, 3100 * ms, 6300 * ms, 12700 * ms, 22700 * ms, 32700 * ms}
		for _, failure := range []func(error){
			func(err error) { l.applyErr = err },
			func(err error) { l.applyErr, l.readErr = err, err },
		} {
			l.tell(func() { failure(unix.ENOBUFS) })
			l.forget()
			l.change()
			l.sleep(35 * time.Second)
			tried := slices.Concat(l.applies[:1], l.reads) // the first is a change, the others are full syncs
			l.check("tried", &tried, want...)
			if !l.Healthy() {
				t.Error("unhealthy after 35 s")
			}
			l.tell(func() { failure(nil) })
			l.sleep(10 * time.Second)
			l.check("recovered", &l.reads, append(want[1:], 42700*ms)...)
			l.forget()
			l.sleep(time.Minute)
			l.check("tried when there was nothing to do", &l.reads)
		}
	})
}

// TestRetriesAreBounded has transactions fail while changes go on coming in: they are
// no reason to try more often than the pause between syncs allows.
func TestRetriesAreBounded(t *testing.T) {
	inLoop(t, func(t *testing.T, l *looping) {
		l.tell(func() { l.takes, l.applyErr = 50*ms, unix.ENOBUFS })
		for range 10000 {
			l.change()
			l.sleep(ms)
		}
		if n := len(l.applies); n < 10 || n > 110 {
			t.Errorf("tried %d times in 10 s, each taking 50 ms", n)
		}
	})
}

// TestHealth has syncs fail: after twice the syncPeriod that is unhealthy, whatever the
// sync was for, until one has worked.
func TestHealth(t *testing.T) {
	for name, cause := range map[string]func(l *looping){
		"a change": (*looping).change,
		"drift":    func(l *looping) { l.tell(func() { l.look = once(nft.Drifted, nil) }) },
	} {
		t.Run(name, func(t *testing.T) {
			inLoop(t, func(t *testing.T, l *looping) {
				l.sleep(time.Hour)
				if !l.Healthy() {
					t.Error("unhealthy with nothing to do")
				}
				l.tell(func() { l.applyErr, l.readErr = unix.EPERM, unix.EPERM })
				cause(l)
				l.sleep(59 * time.Second)
				if !l.Healthy() {
					t.Error("unhealthy before 2*syncPeriod")
				}
				l.sleep(2 * time.Second)
				if l.Healthy() {
					t.Error("healthy after 2*syncPeriod")
				}
				l.tell(func() { l.applyErr, l.readErr = nil, nil })
				l.sleep(maxRetry)
				if !l.Healthy() {
					t.Error("unhealthy after a sync that worked")
				}
			}, "--iptables-sync-period=30s")
		})
	}
}

// TestLooks waits for drift: it is looked for every lookPeriod, and repaired at once.
func TestLooks(t *testing.T) {
	inLoop(t, func(t *testing.T, l *looping) {
		l.sleep(10*time.Second - ms)
		if n := len(l.looks); n != 39 && n != 40 {
			t.Errorf("looked %d times in 10 s, want 40", n)
		}
		l.check("readings", &l.reads)
		l.tell(func() { l.look = once(nft.Drifted, nil) })
		l.sleep(time.Second)
		l.check("drift", &l.reads, 10*time.Second)

		l.forget()
		l.tell(func() { l.look = once(nft.Unknown, nil) }) // somebody writes to another table, once
		l.sleep(10 * time.Minute)
		if len(l.reads) != 1 {
			t.Errorf("a single suspicion: read at %v", l.reads)
		}
	})
}

// TestSuspicion has somebody write to other tables all the time: everything is read, to
// be sure, but no more often than comparePeriod, nor for more than one in compareShare
// of the time. What others do to their tables is not told as drift of ours.
func TestSuspicion(t *testing.T) {
	for _, tt := range []struct {
		reading time.Duration
		want    int // readings in 10 minutes
	}{{0, 115}, {400 * ms, 29}} {
		t.Log("a reading takes", tt.reading)
		inLoop(t, func(t *testing.T, l *looping) {
			l.tell(func() { l.reading = tt.reading })
			l.tell(func() { l.look = func() (nft.Drift, error) { return nft.Unknown, nil } })
			for range 600 {
				l.change()
				l.sleep(time.Second)
			}
			if n := len(l.reads); n < tt.want-1 || n > tt.want+5 {
				t.Errorf("read %d times in 10 minutes, each taking %v; want about %d", n, tt.reading, tt.want)
			}
			l.checkRepaired(0)
			l.tell(func() { l.look = once(nft.Drifted, nil) })
			l.tell(func() { l.holds[service.IPv4] = rules.NewTable() })
			l.sleep(time.Minute)
			l.checkRepaired(1)
		})
	}
}

// TestLookFails loses what a look has seen: it must be found by reading everything.
func TestLookFails(t *testing.T) {
	inLoop(t, func(t *testing.T, l *looping) {
		l.sleep(10*time.Second - ms)
		l.forget()
		l.tell(func() { l.look = once(nft.Unchanged, errors.New("lost")) })
		l.sleep(5 * time.Second)
		l.check("readings", &l.reads, ms)
	})
}

// TestTidying leaves something over: it is seen to after tidyPause, however many changes
// there are until then, and drift is repaired meanwhile.
func TestTidying(t *testing.T) {
	inLoop(t, func(t *testing.T, l *looping) {
		l.tell(func() { l.tidy = unix.EBUSY })
		l.change()
		synctest.Wait()
		l.tell(func() { l.tidy = nil })
		for range 50 {
			l.sleep(700 * ms)
			l.change()
		}
		l.check("full syncs", &l.reads, 30*time.Second)

		l.forget()
		l.tell(func() { l.tidy = unix.EBUSY })
		l.change()
		l.sleep(time.Second)
		l.tell(func() { l.tidy = nil })
		l.tell(func() { l.look = once(nft.Drifted, nil) })
		l.sleep(time.Second)
		if len(l.reads) != 1 {
			t.Errorf("drift while something is left over: repaired at %v", l.reads)
		}
	})
}

// TestAddresses changes the host's addresses: only those that nodePorts are on matter.
func TestAddresses(t *testing.T) {
	ns := newNamespace(t)
	o := Options{NetNS: ns.FD(), Config: parseConfig(t, "--source="+t.TempDir(), "--hostname-override=node-a", "--nodeport-addresses=192.0.2.0/24,2001:db8:1::/64")}
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, o)
		l.Synced()
		l.sleep(time.Second)
		for _, step := range []struct {
			addr string
			want int
		}{{"10.1.1.1", 0}, {"192.0.2.1", 1}, {"2001:db8::1", 0}, {"192.0.2.2", 1}} {
			l.forget()
			addAddress(t, ns, step.addr)
			signal(l.address)
			l.sleep(time.Second)
			if len(l.reads) != step.want {
				t.Errorf("%s: %d full syncs, want %d", step.addr, len(l.reads), step.want)
			}
		}
		l.tell(func() { l.applyErr, l.readErr = unix.EPERM, unix.EPERM })
		l.forget()
		l.change()
		for range 1000 {
			l.sleep(ms)
			signal(l.address)
		}
		l.check("tried, while addresses that do not matter come and go", &l.reads, 100*ms, 300*ms, 700*ms)
	})
}

func addAddress(t *testing.T, ns *lab.Namespace, text string) {
	t.Helper()
	err := ns.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		ip := net.ParseIP(text)
		bits := 128
		if ip.To4() != nil {
			bits = 32
		}
		return netlink.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: net.CIDRMask(bits, bits)}, Flags: unix.IFA_F_NODAD})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestLoopStops ends the loop's context in whatever it is doing: it ends at that
// moment, and the kernel is left alone from then on.
func TestLoopStops(t *testing.T) {
	for name, doing := range map[string]func(l *looping){
		"idle":     func(*looping) {},
		"in pause": func(l *looping) { l.change(); l.sleep(ms); l.change() },
		"retrying": func(l *looping) { l.tell(func() { l.applyErr = unix.EPERM }); l.change(); l.sleep(time.Minute) },
	} {
		t.Run(name, func(t *testing.T) {
			for range 10 {
				inLoop(t, func(t *testing.T, l *looping) {
					doing(l)
					synctest.Wait()
					applies, at := len(l.applies), time.Now()
					l.stop()
					<-l.done
					if took := time.Since(at); took > 0 {
						t.Errorf("it took %v", took)
					}
					if n := len(l.applies) - applies; n > 0 {
						t.Errorf("%d transactions after the end", n)
					}
				}, "--iptables-min-sync-period=30s")
			}
		})
	}
	t.Run("before all is there", func(t *testing.T) {
		o := Options{Config: caseConfig(t, "", t.TempDir())}
		synctest.Test(t, func(t *testing.T) {
			l := startLoop(t, o)
			l.stop()
			<-l.done
		})
	})
}
