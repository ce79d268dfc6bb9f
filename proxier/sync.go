package proxier

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"k8s.io/klog/v2"

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
		d, err = r.full(changes.Services)
	} else {
		d, err = r.incremental(changes.Services)
	}
	took := time.Since(begin)
	r.metrics.SyncDone(why != none, took, err)
	r.syncTimes.Add(took)
	if err != nil {
		r.require(failed)
		r.health.Queued()
		r.lastError = fmt.Errorf("sync: %w", err)
		return r.lastError
	}
	r.due, r.outdated = none, false
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
		r.programming.Add(time.Since(t.At))
	}
	r.cleanUp(ctx, d)
	r.reportProgress()
	r.reportSynced(why, len(changes.Services), d, took, repaired)
	r.lastSync, r.lastError = time.Now(), nil
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
func (r *reconciler) incremental(changed map[service.Name]struct{}) (*rules.Delta, error) {
	r.update(changed)
	if r.builder.Ruleset().OutgrewCounters() {
		return r.full(nil)
	}
	d := r.builder.Ruleset().Changes()
	return d, r.commit(d)
}

// update brings Services of the ruleset up to date.
func (r *reconciler) update(changed map[service.Name]struct{}) {
	r.builder.Update(slices.SortedFunc(maps.Keys(changed), service.Name.Compare)...)
}

// full reads the kernel and programs the difference.
func (r *reconciler) full(changed map[service.Name]struct{}) (*rules.Delta, error) {
	families, build, err := r.wanted(changed)
	if err != nil {
		return nil, err
	}
	d, err := r.tables.Diff(families, build)
	if err != nil {
		r.metrics.NetlinkError(err)
		return nil, err
	}
	for _, broken := range d.Reset {
		klog.InfoS("Replacing table", "table", broken.Family, "reason", broken.Reason)
	}
	return d, r.commit(d)
}

// wanted returns what makes the ruleset for a full sync: it builds everything anew, with endpoints in the
// kernel's slots, or only the Services that changed if this is enough.
func (r *reconciler) wanted(changed map[service.Name]struct{}) (
	[]service.Family, func(rules.Slots) *rules.Ruleset, error) {
	if !r.outdated {
		return r.builder.Ruleset().Families(), func(rules.Slots) *rules.Ruleset {
			r.update(changed)
			return r.builder.Ruleset()
		}, nil
	}
	e, err := r.env()
	return e.Config.Families, func(slots rules.Slots) *rules.Ruleset { return r.builder.Rebuild(e, slots) }, err
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
