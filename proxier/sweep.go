package proxier

import (
	"context"
	"errors"
	"time"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// A walk of a connection tracking table with a million entries takes seconds. So the search for stale flows
// runs beside the syncs, for at most sweepBudget. A sync that gives endpoints to one of its frontends waits
// for it, because the search would take new flows to them for stale: at most sweepPatience, then the search
// ends and starts over after the commit.
const (
	sweepBudget   = 30 * time.Second
	sweepPatience = time.Second
)

// sweep is a search for stale flows that runs.
type sweep struct {
	flows  map[service.Frontend]service.Name // that it searches
	cancel context.CancelFunc
	done   chan []swept // gets the result once
}

// swept is the result of a sweep in one family.
type swept struct {
	family  service.Family
	deleted int
	former  []service.Frontend
	took    time.Duration
	err     error
}

// startSweep searches for the flows that cleanup has noted. Call it when the kernel has the ruleset.
func (r *reconciler) startSweep(ctx context.Context) {
	if r.sweep != nil || len(r.cleanup.flows) == 0 {
		return
	}
	stale := r.staleFlows()
	ctx, cancel := context.WithTimeout(ctx, sweepBudget)
	s := &sweep{flows: r.cleanup.flows, cancel: cancel, done: make(chan []swept, 1)}
	r.sweep, r.cleanup.flows = s, map[service.Frontend]service.Name{}
	families, deleteFlows := r.builder.Environment().Config.Families, r.deleteFlows
	go func() {
		var result []swept
		for _, f := range families {
			begin := time.Now()
			deleted, former, err := deleteFlows(ctx, f, stale)
			result = append(result, swept{f, deleted, former, time.Since(begin), err})
		}
		s.done <- result
	}()
}

// swept returns the channel with the result of the sweep that runs, or nil.
func (r *reconciler) swept() <-chan []swept {
	if r.sweep == nil {
		return nil
	}
	return r.sweep.done
}

// endSweep records the result of the sweep. What it did not finish is noted again.
func (r *reconciler) endSweep(result []swept) {
	s := r.sweep
	r.sweep = nil
	s.cancel()
	finished := true
	var errs []error
	for _, part := range result {
		for _, f := range part.former {
			r.cleanup.remember(f, s.flows[f])
		}
		r.metrics.ConntrackReconciled(part.family, part.took, part.deleted)
		if part.err == nil {
			continue
		}
		finished = false
		if !errors.Is(part.err, context.Canceled) {
			r.cleanup.retryLater()
			r.metrics.NetlinkError(part.err)
			errs = append(errs, part.err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		r.flushing.failed(err)
	}
	if finished {
		r.flushing.succeeded()
		return
	}
	for f, name := range s.flows {
		if _, noted := r.cleanup.flows[f]; !noted {
			r.cleanup.flows[f] = name
		}
	}
}

// awaitSweep waits for the sweep that runs, if there is one, and stops it after sweepPatience.
func (r *reconciler) awaitSweep() {
	if r.sweep == nil {
		return
	}
	defer time.AfterFunc(sweepPatience, r.sweep.cancel).Stop()
	r.endSweep(<-r.sweep.done)
}

// searches reports whether the sweep searches flows of one of the Services.
func (s *sweep) searches(services map[service.Name]struct{}) bool {
	if s == nil {
		return false
	}
	for _, name := range s.flows {
		if _, ok := services[name]; ok {
			return true
		}
	}
	return false
}

// conflicts reports whether a Delta gives endpoints to a frontend that the sweep searches.
func (s *sweep) conflicts(d *rules.Delta) bool {
	if s == nil {
		return false
	}
	for i := range d.Add {
		switch d.Add[i].Set.Kind {
		case nftables.Endpoints, nftables.LocalEndpoints, nftables.StickyBackends, nftables.StickyLocalBackends:
			if _, ok := s.flows[d.Add[i].KeyValues().Frontend()]; ok {
				return true
			}
		}
	}
	return false
}
