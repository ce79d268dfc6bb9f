package proxier

import (
	"context"
	"runtime/debug"
	"slices"
	"time"

	"github.com/nftproxy/nftproxy/proxier/conntrack"
	"github.com/nftproxy/nftproxy/proxier/desired"
	"github.com/nftproxy/nftproxy/proxier/host"
	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/proxier/state"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// tables are nftproxy's tables in the kernel: a *kernel.Conn.
type tables interface {
	Diff(families []service.Family, build func(rules.Slots) *rules.Ruleset) (*rules.Delta, error)
	Apply(d *rules.Delta) error
	DeleteStale(d *rules.Delta) error
	CheckDrift(want *rules.Ruleset) (kernel.Drift, error)
}

// deleteFlows deletes stale flows of a family from connection tracking: conntrack.Clean.
type deleteFlows func(ctx context.Context, f service.Family, stale []service.StaleFlows) (
	deleted int, former []service.Frontend, err error)

// reason says why a sync has to be full: it reads the kernel and compares everything. Without a reason a sync
// is incremental: it programs the Services that changed. Of several reasons the greatest counts.
type reason int

const (
	none        reason = iota
	leftovers          // stale chains, sets or flows were left after a commit
	suspicion          // another process changed some table, and a check found nothing wrong with ours
	start              // nothing was compared yet
	environment        // the node, its addresses or the ServiceCIDRs changed
	failed             // the last sync failed: it is not known what the kernel holds
	drift              // another process changed our tables
)

func (r reason) String() string {
	return [...]string{"change", "leftovers", "suspicion", "start", "environment", "failed", "drift"}[r]
}

// reconciler brings the kernel in line with the state. Its goroutine is the only one that writes to it.
//
//	operations   sync.go: full and incremental syncs;  cleanup.go, sweep.go: after a commit
//	loop         this file: when to sync, and why
//	retry, pace  pace.go
//	progress     report.go: Events, metrics and health;  inquiry.go, status.go: answers to people
type reconciler struct {
	*Proxier
	tables      tables
	deleteFlows deleteFlows
	builder     *desired.Builder
	env         func() (desired.Environment, error)

	due reason // why the next sync has to be full
	// outdated: the next full sync has to build the ruleset anew.
	outdated bool
	early    state.Changes // that came in during a full sync, which may have them already
	compare  compareTimer
	cleanup  cleanup
	sweep    *sweep // nil: none runs

	lastSync          time.Time // that succeeded; zero: none has
	lastError         error     // of the last sync
	repairs           int       // of tables that another process had changed
	repairedAt        time.Time // the last of them
	repaired          string    // what it did
	syncing           failure   // of syncs
	checking          failure   // of checks for drift
	flushing          failure   // of deletions of stale flows
	ports             reported  // healthCheckNodePorts that could not be opened
	loopbacks         reported  // nodePorts on loopback addresses that could not be opened
	loopbackConflicts reported
	unrestricted      []service.Family // the last that were logged
}

func (p *Proxier) newReconciler(t tables) *reconciler {
	return &reconciler{
		Proxier:     p,
		tables:      t,
		deleteFlows: conntrack.Clean,
		builder: desired.NewBuilder(p.state, func(o desired.Problem) {
			p.events.reportService(o.Service, o.Reason, o.Message)
		}),
		env:      p.environment,
		due:      start,
		outdated: true,
		cleanup:  newCleanup(),
		syncing:  failure{message: "Sync failed"},
		checking: failure{message: "Failed to check the tables for drift"},
		flushing: failure{message: "Failed to delete stale flows, will retry"},
	}
}

// require makes the next sync a full one. If the reason is only what another process did, or may have done,
// to the tables, the ruleset is as it should be.
func (r *reconciler) require(why reason) {
	r.due = max(r.due, why)
	r.outdated = r.outdated || why != suspicion && why != drift
}

// run syncs at once on the first change, then no more often than minSyncPeriod, so that a burst becomes one
// sync. It retries a failed sync at growing intervals; a change meanwhile syncs as well.
func (r *reconciler) run(ctx context.Context) {
	if !r.awaitSource(ctx) {
		return
	}
	signal(r.wake)
	defer r.awaitSweep()
	var retry retry
	checks := time.NewTicker(checkPeriod)
	defer checks.Stop()
	for ctx.Err() == nil {
		select {
		case <-r.wake:
		case <-retry.due:
		case result := <-r.swept():
			r.endSweep(result)
			if r.due == none {
				r.startSweep(ctx) // for what was noted meanwhile
			}
			continue
		case ask := <-r.asked:
			ask(r)
			continue
		case <-r.cleanup.due:
			r.cleanup.due = nil
			r.require(leftovers)
		case <-checks.C:
			r.reopenPorts()
			r.checkDrift()
			if r.due == none || retry.pending() {
				continue // there is nothing to repair, or the retry does it
			}
		case <-r.address:
			if !r.addressesChanged() {
				continue
			}
			r.require(environment)
		case <-ctx.Done():
			return
		}
		begin := time.Now()
		r.progress.begin()
		if err := r.sync(ctx); err != nil {
			r.syncing.failed(err, "retryIn", retry.after())
			retry.failed()
		} else {
			retry.succeeded()
			r.markDone()
		}
		r.progress.end(r.facts())
		r.rest(ctx, r.pace().pauseAfter(begin))
	}
}

// markDone says that everything was programmed once. The start takes several times the memory of what
// follows, and the system gets that back.
func (r *reconciler) markDone() {
	select {
	case <-r.done:
	default:
		close(r.done)
		debug.FreeOSMemory()
	}
}

// addressesChanged reports whether the addresses of nodePorts or health checks have changed, or a Service has
// a frontend that the node itself needs now. Interfaces of pods come and go all the time; their addresses
// serve neither.
func (r *reconciler) addressesChanged() bool {
	e, err := r.env()
	before := r.builder.Environment()
	return err != nil || !slices.Equal(e.Node.NodePortAddrs, before.Node.NodePortAddrs) ||
		!slices.Equal(e.HealthCheckAddrs, before.HealthCheckAddrs) || r.builder.Reserve(e.Node.Reserved)
}

// environment returns the Environment with the host's addresses.
func (p *Proxier) environment() (desired.Environment, error) {
	addrs, err := host.Addrs()
	if err != nil {
		return desired.Environment{}, err
	}
	e := desired.NewEnvironment(p.config, p.name, p.state, p.families, addrs)
	if p.client != nil {
		e.ReserveAPIServer(p.client.Dialed())
	}
	return e, nil
}
