package proxier

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// slowSweep returns a reconciler whose search for flows of a Service runs until its context ends, and when
// that was.
func slowSweep(t *testing.T) (r *reconciler, s *scripted, ended chan error) {
	r, s = newScripted(t)
	ended = make(chan error, 10)
	r.deleteFlows = func(ctx context.Context, f service.Family, _ []service.StaleFlows) (
		int, []service.Frontend, error) {
		if f == service.IPv6 {
			return 0, nil, nil
		}
		<-ctx.Done()
		ended <- ctx.Err()
		return 0, nil, ctx.Err()
	}
	dns := service.Frontend{Addr: netip.MustParseAddr("10.96.0.1"), Protocol: service.UDP, Port: 53}
	r.cleanup.flows[dns] = service.Name{Namespace: "default", Name: "web"}
	r.startSweep(t.Context())
	return r, s, ended
}

// TestSweepBesideSyncs syncs while a search for stale flows does not come to its end: Services that it does
// not search do not wait, the others wait sweepPatience, and the search starts over after their commit.
func TestSweepBesideSyncs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _, ended := slowSweep(t)
		ctx, begin := t.Context(), time.Now()
		changeNamed(r.Proxier, "other")
		if err := r.sync(ctx); err != nil || time.Since(begin) > 0 {
			t.Errorf("another Service: error %v after %v, want none at once", err, time.Since(begin))
		}
		changeNamed(r.Proxier, "web")
		if err := r.sync(ctx); err != nil || time.Since(begin) != sweepPatience {
			t.Errorf("a Service with flows: error %v after %v, want none after %v",
				err, time.Since(begin), sweepPatience)
		}
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the search ended with %v, want %v", err, context.Canceled)
		}
		if r.sweep == nil || len(r.sweep.flows) != 1 || r.cleanup.due != nil {
			t.Errorf("after the commit: search %+v, cleanup due %t; want one search", r.sweep, r.cleanup.due != nil)
		}
		r.endSweep(<-r.sweep.done)
		if got := time.Since(begin); got != sweepPatience+sweepBudget {
			t.Errorf("the next search ended after %v, want %v", got, sweepPatience+sweepBudget)
		}
		if r.cleanup.due == nil || len(r.cleanup.flows) != 1 {
			t.Error("a search that exceeded its time is not repeated")
		}
	})
}

// TestSweepConflicts gives endpoints to a frontend that a search has, for another Service.
func TestSweepConflicts(t *testing.T) {
	f := service.Frontend{Addr: netip.MustParseAddr("10.96.0.1"), Protocol: service.UDP, Port: 53}
	other := f
	other.Port = 54
	s := &sweep{flows: map[service.Frontend]service.Name{f: {Namespace: "default", Name: "web"}}}
	pod := netip.MustParseAddrPort("10.244.0.1:53")
	for at, want := range map[service.Frontend]bool{f: true, other: false} {
		d := &rules.Delta{Add: []nftables.Element{nftables.SlotElement(nftables.Endpoints, at, 0, pod)}}
		if got := s.conflicts(d); got != want {
			t.Errorf("frontend %s: %t, want %t", at, got, want)
		}
	}
}

// TestSweepEndsWithDaemon ends the reconciler while a search does not come to its end.
func TestSweepEndsWithDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _, ended := slowSweep(t)
		r.awaitSweep()
		<-ended
		close(r.synced)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			r.run(ctx)
			close(done)
		}()
		time.Sleep(time.Second)
		if r.sweep == nil {
			t.Fatal("no search runs")
		}
		begin := time.Now()
		cancel()
		<-done
		if took := time.Since(begin); took > 0 {
			t.Errorf("the reconciler ended after %v, want at once", took)
		}
	})
}
