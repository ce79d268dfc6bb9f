package proxier

import (
	"context"
	"slices"
	"time"

	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// cleanupPeriod is how long after a failed cleanup the next one is due.
const cleanupPeriod = 30 * time.Second

// cleanup is what is still to be done after a commit. No new connection depends on it.
type cleanup struct {
	// flows are the frontends whose flows have to be searched for stale ones, with the Services that have or
	// had them. They outlive a transaction that failed: it may have been committed after all, and then the
	// next one does not contain the frontends that it removed.
	flows map[service.Frontend]service.Name
	// former are frontends that are gone and whose flows continue, as their endpoints live on. Each is
	// searched again when its Service changes, until it has no flow.
	former map[service.Name]map[service.Frontend]struct{}
	due    <-chan time.Time // nil: nothing is left over
}

func newCleanup() cleanup {
	return cleanup{
		flows:  map[service.Frontend]service.Name{},
		former: map[service.Name]map[service.Frontend]struct{}{},
	}
}

// note remembers which flows to look at once a Delta is committed.
func (c *cleanup) note(d *rules.Delta) {
	for _, stale := range d.Stale {
		c.flows[stale.Frontend] = stale.Service
	}
}

// again remembers the former frontends of Services that have changed.
func (c *cleanup) again(changed map[service.Name]struct{}) {
	for name := range changed {
		for f := range c.former[name] {
			if _, noted := c.flows[f]; !noted {
				c.flows[f] = name
			}
		}
		delete(c.former, name)
	}
}

// retryLater leaves the rest to a full sync.
func (c *cleanup) retryLater() {
	if c.due == nil {
		c.due = time.After(cleanupPeriod)
	}
}

// cleanUp deletes the chains and sets that a transaction left without use, in one small transaction, and
// starts the search for stale flows.
func (r *reconciler) cleanUp(ctx context.Context, d *rules.Delta) {
	if err := r.tables.DeleteStale(d); err != nil {
		r.cleanup.retryLater()
		r.metrics.CleanupFailed()
		r.metrics.NetlinkError(err)
		klog.V(2).InfoS("Failed to delete stale chains or sets, will retry", "err", err)
	}
	if r.builder.Ruleset().Unused() > rules.MaxUnused {
		r.cleanup.retryLater() // a full sync deletes them
	}
	r.startSweep(ctx)
}

// staleFlows returns the frontends to search. For a frontend that is gone, the slices of its Service say to
// which endpoints flows continue: the rules do not have them any more.
func (r *reconciler) staleFlows() []service.StaleFlows {
	out := make([]service.StaleFlows, 0, len(r.cleanup.flows))
	for f, name := range r.cleanup.flows {
		stale, has := r.builder.Ruleset().Flows(f)
		if !has {
			stale = service.StaleFlows{Frontend: f, Service: name, Gone: true}
			stale.Keep = r.state.Alive(name, f.Protocol)
		} else if f.Protocol == service.UDP {
			stale.Draining = r.draining(f, name)
		}
		out = append(out, stale)
	}
	return out
}

// draining returns the endpoints that terminate and that the rules do not choose.
func (r *reconciler) draining(f service.Frontend, name service.Name) []service.Backend {
	held := r.builder.Ruleset().Slots(f)
	return slices.DeleteFunc(r.state.Draining(name), func(b service.Backend) bool {
		return slices.Contains(held.Backends, b) || slices.Contains(held.Locals, b)
	})
}

// remember keeps a frontend that is gone for the next change of its Service.
func (c *cleanup) remember(f service.Frontend, name service.Name) {
	if c.former[name] == nil {
		c.former[name] = map[service.Frontend]struct{}{}
	}
	c.former[name][f] = struct{}{}
}
