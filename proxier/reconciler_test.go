package proxier

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/desired"
	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// TestGreatestReasonCounts requires syncs for two reasons, in both orders.
func TestGreatestReasonCounts(t *testing.T) {
	order := []reason{none, leftovers, suspicion, start, environment, failed, drift}
	for i, lesser := range order {
		for _, greater := range order[i:] {
			for _, pair := range [][]reason{{lesser, greater}, {greater, lesser}} {
				r, s := newScripted(t)
				r.require(pair[0])
				r.require(pair[1])
				if r.due != greater {
					t.Errorf("%s and %s: due because of %s, want %s", pair[0], pair[1], r.due, greater)
				}
				mustSync(t, r, s, greater != none)
			}
		}
	}
}

// TestFullOrIncremental changes objects: a change of the node needs a full sync, one of a Service does not.
func TestFullOrIncremental(t *testing.T) {
	r, s := newScripted(t)
	mustSync(t, r, s, false)
	changeService(r.Proxier)
	mustSync(t, r, s, false)
	changeNode(r.Proxier)
	s.lacks = oneChain()
	mustSync(t, r, s, true)
	mustSync(t, r, s, false)
}

// TestChangesDuringFullSync delivers changes while a full sync compares everything: the next sync programs
// them.
func TestChangesDuringFullSync(t *testing.T) {
	r, s := newScripted(t)
	s.meanwhile = func() { changeService(r.Proxier) }
	r.require(failed)
	mustSync(t, r, s, true)
	if n := r.builder.Ruleset().Services(); n != 0 {
		t.Fatalf("%d Services in the ruleset before the change, want none", n)
	}
	mustSync(t, r, s, false)
	if n := r.builder.Ruleset().Services(); n != 1 {
		t.Errorf("%d Services in the ruleset after the change, want 1", n)
	}
	s.meanwhile = func() { changeNode(r.Proxier) }
	r.require(failed)
	mustSync(t, r, s, true)
	s.meanwhile = nil
	mustSync(t, r, s, true)
	if addrs := r.builder.Environment().Node.Addrs; len(addrs) != 1 {
		t.Errorf("the node has the addresses %v, want one", addrs)
	}
	mustSync(t, r, s, false)
}

// TestFailedSync lets each step of a sync fail: the next sync is full, whatever the reason of the one that
// failed.
func TestFailedSync(t *testing.T) {
	broken := errors.New("broken")
	for name, fail := range map[string]func(r *reconciler, s *scripted){
		"incremental transaction": func(r *reconciler, s *scripted) {
			s.applyErrs = []error{broken}
			changeService(r.Proxier)
		},
		"full transaction": func(r *reconciler, s *scripted) {
			s.applyErrs, s.lacks = []error{broken}, oneChain()
			r.require(leftovers)
		},
		"diff": func(r *reconciler, s *scripted) {
			s.diffErr = broken
			r.require(environment)
		},
		"environment": func(r *reconciler, _ *scripted) {
			env := r.env
			r.env = func() (desired.Environment, error) {
				r.env = env
				return desired.Environment{}, broken
			}
			changeNode(r.Proxier)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, s := newScripted(t)
			fail(r, s)
			if err := syncWhole(t, r); !errors.Is(err, broken) {
				t.Fatalf("error %v, want %v", err, broken)
			}
			if r.due != failed {
				t.Errorf("the next sync is due because of %s, want %s", r.due, failed)
			}
			s.diffErr = nil
			mustSync(t, r, s, true)
			mustSync(t, r, s, false)
			checkRepaired(t, r, 0)
		})
	}
}

// TestRepairs lets full syncs find differences: they are reported as repairs only where another process must
// have made them.
func TestRepairs(t *testing.T) {
	for _, tt := range []struct {
		name      string
		why       reason
		change    func(*Proxier) // before the sync
		meanwhile func(*Proxier) // during the sync
		inSync    bool           // Diff finds nothing
		want      int
	}{
		{name: "drift", why: drift, want: 1},
		{name: "drift and a change", why: drift, change: changeService, want: 1},
		{name: "drift that is gone", why: drift, inSync: true},
		{name: "suspicion", why: suspicion, want: 1},
		{name: "unfounded suspicion", why: suspicion, inSync: true},
		{name: "suspicion and a change", why: suspicion, change: changeService},
		{name: "suspicion and a change meanwhile", why: suspicion, meanwhile: changeService},
		{name: "suspicion and a change of the node", why: suspicion, change: changeNode},
		{name: "suspicion and a change of the node meanwhile", why: suspicion, meanwhile: changeNode},
		{name: "leftovers", why: leftovers},
		{name: "environment", why: environment},
		{name: "failed", why: failed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, s := newScripted(t)
			if !tt.inSync {
				s.lacks = oneChain()
			}
			if tt.why == suspicion {
				r.compare.suspect()
			}
			r.require(tt.why)
			if tt.change != nil {
				tt.change(r.Proxier)
			}
			if tt.meanwhile != nil {
				s.meanwhile = func() { tt.meanwhile(r.Proxier) }
			}
			mustSync(t, r, s, true)
			checkRepaired(t, r, tt.want)
			s.lacks, s.meanwhile = oneChain(), nil
			r.require(failed)
			mustSync(t, r, s, true)
			checkRepaired(t, r, tt.want) // once
		})
	}
}

// TestSuspicionAndLeftovers lets a full sync for leftovers repair a change by another process, which a check
// could not find. It is a repair; without a suspicion it is none.
func TestSuspicionAndLeftovers(t *testing.T) {
	r, s := newScripted(t)
	s.found = kernel.Unknown
	r.checkDrift()
	if r.due != none || !r.compare.suspected {
		t.Fatalf("due because of %s, suspected %t; want none, true", r.due, r.compare.suspected)
	}
	s.lacks = oneChain()
	r.require(leftovers)
	mustSync(t, r, s, true)
	checkRepaired(t, r, 1)
	if r.compare.suspected {
		t.Error("the suspicion outlives a full sync")
	}
}

// TestDriftSurvivesFailure lets the repair of drift fail: it stays the reason until a sync succeeds, and is
// reported then, once.
func TestDriftSurvivesFailure(t *testing.T) {
	r, s := newScripted(t)
	s.found, s.lacks = kernel.Drifted, oneChain()
	r.checkDrift()
	if r.due != drift {
		t.Fatalf("due because of %s, want %s", r.due, drift)
	}
	s.found = kernel.Unchanged
	s.applyErrs = []error{unix.ENOBUFS, unix.ENOBUFS}
	for range 2 {
		failSync(t, r)
		r.checkDrift()
		if r.due != drift {
			t.Errorf("after a failure, due because of %s, want %s", r.due, drift)
		}
		checkRepaired(t, r, 0)
	}
	mustSync(t, r, s, true)
	checkRepaired(t, r, 1)
	s.applyErrs, s.lacks = []error{unix.ENOBUFS}, oneChain()
	r.require(environment)
	failSync(t, r)
	mustSync(t, r, s, true)
	checkRepaired(t, r, 1)
}

// TestFailureEndsSuspicion lets a sync fail after a suspicion: the differences that the next one finds may be
// its own.
func TestFailureEndsSuspicion(t *testing.T) {
	r, s := newScripted(t)
	r.compare.suspect()
	s.applyErrs = []error{unix.ENOBUFS}
	changeService(r.Proxier)
	failSync(t, r)
	s.lacks = oneChain()
	mustSync(t, r, s, true)
	checkRepaired(t, r, 0)
}

// TestSuspicionIsDue lets checks find that another process writes: after comparePeriod, or after compareShare
// times the duration of the last full sync, a full sync is due.
func TestSuspicionIsDue(t *testing.T) {
	for _, tt := range []struct {
		took, wait time.Duration
	}{
		{0, comparePeriod},
		{time.Second, compareShare * time.Second},
	} {
		for name, suspect := range map[string]func(s *scripted){
			"unknown": func(s *scripted) { s.found = kernel.Unknown },
			"failed":  func(s *scripted) { s.checkErr = unix.ENOBUFS },
		} {
			t.Run(fmt.Sprint(name, " ", tt.took), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r, s := newScripted(t)
					s.meanwhile = func() { time.Sleep(tt.took) }
					r.require(environment)
					mustSync(t, r, s, true)
					suspect(s)
					time.Sleep(tt.wait)
					r.checkDrift()
					if r.due != none {
						t.Errorf("after %v, due because of %s", tt.wait, r.due)
					}
					s.found, s.checkErr = kernel.Unchanged, nil
					time.Sleep(time.Microsecond)
					r.checkDrift()
					if r.due != suspicion {
						t.Errorf("after more than %v, due because of %s, want %s", tt.wait, r.due, suspicion)
					}
					mustSync(t, r, s, true)
					time.Sleep(time.Hour)
					r.checkDrift()
					if r.due != none {
						t.Errorf("after a full sync, due because of %s", r.due)
					}
				})
			})
		}
	}
}

// TestCleanupIsRetried lets a cleanup fail, several times: a full sync is due cleanupPeriod after the first
// failure.
func TestCleanupIsRetried(t *testing.T) {
	for name, fail := range map[string]func(r *reconciler, s *scripted, err error){
		"chains and sets": func(_ *reconciler, s *scripted, err error) { s.deleteErr = err },
		"flows": func(r *reconciler, _ *scripted, err error) {
			r.deleteFlows = func(context.Context, service.Family, []service.StaleFlows) (
				int, []service.Frontend, error) {
				return 0, nil, err
			}
			stale := service.StaleFlows{Frontend: service.Frontend{Protocol: service.UDP}}
			r.cleanup.note(&rules.Delta{Stale: []service.StaleFlows{stale}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, s := newScripted(t)
				begin := time.Now()
				fail(r, s, unix.EBUSY)
				for range 10 {
					mustSync(t, r, s, false) // a failed cleanup is no reason for a full sync at once
					time.Sleep(time.Second)
				}
				select {
				case <-r.cleanup.due:
					if waited := time.Since(begin); waited != cleanupPeriod {
						t.Errorf("due after %v, want %v", waited, cleanupPeriod)
					}
				case <-time.After(time.Hour):
					t.Fatal("no cleanup is due")
				}
				fail(r, s, nil)
				r.require(leftovers)
				mustSync(t, r, s, true)
				if name == "chains and sets" {
					checkMetric(t, r.Proxier,
						`kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total{ip_family="IPv4"}`, 10)
				}
				if r.cleanup.due != nil || len(r.cleanup.flows) > 0 {
					t.Errorf("after a cleanup, another one is due for %v", r.cleanup.flows)
				}
			})
		})
	}
}

// TestFlowsOutliveFailure loses the acknowledgement of a transaction that removed a frontend: the next sync
// finds nothing to do, and deletes the flows of that frontend.
func TestFlowsOutliveFailure(t *testing.T) {
	r, s := newScripted(t)
	gone := service.Frontend{Addr: netip.MustParseAddr("10.96.0.53"), Protocol: service.UDP, Port: 53}
	var cleaned []service.Frontend
	r.deleteFlows = func(_ context.Context, f service.Family, stale []service.StaleFlows) (
		int, []service.Frontend, error) {
		for _, flows := range stale {
			if f == service.IPv4 {
				cleaned = append(cleaned, flows.Frontend)
			}
		}
		return 0, nil, nil
	}
	s.lacks = oneChain()
	s.lacks.Stale = []service.StaleFlows{{Frontend: gone}}
	s.applyErrs = []error{netlink.ErrUnknownOutcome}
	r.require(environment)
	failSync(t, r)
	if len(cleaned) > 0 {
		t.Errorf("deleted flows of %v before the transaction is known to be committed", cleaned)
	}
	s.lacks = rules.Delta{}
	mustSync(t, r, s, true)
	if !slices.Equal(cleaned, []service.Frontend{gone}) {
		t.Errorf("deleted flows of %v, want %v", cleaned, gone)
	}
	mustSync(t, r, s, false)
	if len(cleaned) != 1 {
		t.Errorf("deleted flows again: %v", cleaned)
	}
}
