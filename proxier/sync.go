package proxier

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier/desired"
	"github.com/nftproxy/nftproxy/proxier/state"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// sync programs all changes of the state. After an error nothing is recorded as programmed: the next sync is
// full and reads back what the kernel holds.
func (r *reconciler) sync(ctx context.Context) error {
	r.metrics.ServiceChangesPending.Set(0)
	r.metrics.EndpointChangesPending.Set(0)
	changes := r.take()
	if r.due != none || changes.Environment || r.sweep.searches(changes.Services) {
		r.awaitSweep()
	}
	r.cleanup.again(changes.Services)
	if changes.Environment {
		r.require(environment)
	}
	if r.due != none && r.compare.suspected {
		r.require(suspicion)
	}
	why, begin := r.due, time.Now()
	var d *rules.Delta
	var err error
	if why != none {
		d, err = r.full()
	} else {
		d, err = r.incremental(slices.SortedFunc(maps.Keys(changes.Services), service.Name.Compare))
	}
	took := time.Since(begin)
	r.metrics.SyncDone(why != none, took, err)
	if err != nil {
		r.require(failed)
		r.health.Queued()
		return fmt.Errorf("sync: %w", err)
	}
	r.due = none
	repaired := false
	if why != none {
		r.early = r.state.Take() // that came in while everything was compared
		changed := len(changes.Services)+len(r.early.Services) > 0 || r.early.Environment
		repaired = r.reportRepaired(why, changed, d)
		r.cleanup.due = nil // the leftovers are in d
		r.compare.compared(took)
	}
	r.serveLocalhost()
	r.health.Updated()
	for _, t := range changes.Triggers {
		r.metrics.NetworkProgrammed(t.Family, time.Since(t.At))
	}
	r.cleanUp(ctx, d)
	r.reportProgress()
	r.reportSynced(why, len(changes.Services), d, took, repaired)
	return nil
}

// take returns what changed since the last sync.
func (r *reconciler) take() state.Changes {
	changes := r.state.Take()
	maps.Copy(changes.Services, r.early.Services)
	changes.Environment = changes.Environment || r.early.Environment
	changes.Triggers = append(r.early.Triggers, changes.Triggers...)
	r.early = state.Changes{}
	return changes
}

// incremental programs the changes of some Services.
func (r *reconciler) incremental(names []service.Name) (*rules.Delta, error) {
	r.builder.Update(names...)
	if r.builder.Ruleset().OutgrewCounters() {
		return r.full()
	}
	d := r.builder.Ruleset().Changes()
	return d, r.commit(d)
}

// full reads the kernel, builds everything anew and programs the difference.
func (r *reconciler) full() (*rules.Delta, error) {
	e, err := r.env()
	if err != nil {
		return nil, err
	}
	d, err := r.diff(e)
	if err != nil {
		r.metrics.NetlinkError(err)
		return nil, err
	}
	for _, broken := range d.Reset {
		klog.InfoS("Replacing table", "table", broken.Family, "reason", broken.Reason)
	}
	return d, r.commit(d)
}

// diff returns what the kernel lacks of the ruleset in an Environment. Endpoints stay in the kernel's slots.
func (r *reconciler) diff(e desired.Environment) (*rules.Delta, error) {
	return r.tables.Diff(e.Config.Families, func(slots rules.Slots) *rules.Ruleset {
		return r.builder.Rebuild(e, slots)
	})
}

// commit applies a Delta in one transaction and records it.
func (r *reconciler) commit(d *rules.Delta) error {
	if r.sweep.conflicts(d) {
		r.awaitSweep() // another Service takes over a frontend
	}
	r.cleanup.note(d)
	if d.Size() > 0 {
		r.connections.begin(d)
		err := r.tables.Apply(d)
		r.connections.end(d, err)
		r.metrics.TransactionDone(len(d.Add), len(d.Delete), err)
		if err != nil {
			return err
		}
	}
	r.builder.Ruleset().Done()
	return nil
}
