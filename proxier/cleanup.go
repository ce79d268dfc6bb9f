package proxier

import (
	"maps"
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
	// flows are the frontends whose flows have to be searched for stale ones. They outlive a transaction that failed:
	// it may have been committed after all, and then the next one does not contain the frontends that it removed.
	flows map[service.Frontend]service.StaleFlows
	due   <-chan time.Time // nil: nothing is left over
}

// note remembers which flows to look at once a Delta is committed.
func (c *cleanup) note(d *rules.Delta) {
	for _, stale := range d.Stale {
		c.flows[stale.Frontend] = stale
	}
}

// retryLater leaves the rest to a full sync.
func (c *cleanup) retryLater() {
	if c.due == nil {
		c.due = time.After(cleanupPeriod)
	}
}

// cleanUp deletes chains, sets and flows that a transaction left without use.
func (r *reconciler) cleanUp(d *rules.Delta) {
	if err := r.tables.DeleteStale(d); err != nil {
		r.cleanup.retryLater()
		r.metrics.CleanupFailed()
		r.metrics.NetlinkError(err)
		klog.V(2).InfoS("Failed to delete stale chains or sets, will retry", "err", err)
	}
	if r.builder.Ruleset().Unused() > rules.MaxUnused {
		r.cleanup.retryLater() // a full sync deletes them
	}
	r.cleanFlows()
}

// cleanFlows deletes flows to endpoints that their frontends no longer have.
func (r *reconciler) cleanFlows() {
	if len(r.cleanup.flows) == 0 {
		return
	}
	stale := slices.Collect(maps.Values(r.cleanup.flows))
	ok := true
	for _, f := range r.builder.Environment().Config.Families {
		begin := time.Now()
		deleted, err := r.deleteFlows(f, stale)
		r.metrics.ConntrackReconciled(f, time.Since(begin), deleted)
		if err != nil {
			r.metrics.NetlinkError(err)
			klog.ErrorS(err, "Failed to delete stale flows, will retry", "family", f)
			ok = false
		}
	}
	if !ok {
		r.cleanup.retryLater()
		return
	}
	clear(r.cleanup.flows)
}
