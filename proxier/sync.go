package proxier

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier/conntrack"
	"github.com/nftproxy/nftproxy/proxier/health"
	"github.com/nftproxy/nftproxy/proxier/metrics"
	"github.com/nftproxy/nftproxy/proxier/nft"
	"github.com/nftproxy/nftproxy/proxier/state"
	"github.com/nftproxy/nftproxy/rules"
)

// kernel is where the ruleset is programmed: an *nft.Conn.
type kernel interface {
	Read(families []rules.Family) (*nft.Snapshot, error)
	Apply(d *rules.Delta, generation uint32) error
	Tidy(d *rules.Delta) (forgotten int, err error)
	Look(want nft.Outline) (nft.Drift, error)
}

// cleaner deletes flows that lead where they must not: a conntrack.Cleaner.
type cleaner interface {
	Clean(f rules.Family, stale []conntrack.Stale) (deleted int, err error)
}

// syncer brings the kernel in line with the state. It is owned by one goroutine.
type syncer struct {
	builder
	kernel    kernel
	newGround func() (ground, error)
	flows     cleaner
	metrics   *metrics.Metrics
	health    *health.ProxierHealth
	checks    *health.ServiceHealth
	events    *eventer

	// resync says that what is programmed is not known for sure, or that the
	// ground moved: the next sync reads the kernel and compares everything.
	resync bool
	// early are changes that came in during a full sync. The next one has to see to
	// them, but they may be in it already.
	early state.Changes
	// stale are the frontends whose flows are yet to be looked through. They outlive a
	// transaction that failed: it may have been committed after all, and then the next
	// one knows nothing of frontends that went with it.
	stale map[rules.Frontend]conntrack.Stale
	// untidy says that something stale is left over; the next full sync finds it.
	untidy bool
	// suspicious says that somebody else changed the ruleset and ours looks right,
	// as far as can be seen without reading it all.
	suspicious bool
	// closed says that a healthCheckNodePort could not be opened.
	closed bool
	// drifted says that the resync is to repair what somebody else did.
	drifted bool
	// compared is when everything was last compared, and how long that took.
	compared    time.Time
	compareTime time.Duration
}

func (p *Proxier) newSyncer(k kernel) *syncer {
	return &syncer{
		builder: builder{state: p.state, report: func(problem Problem) {
			p.events.service(problem.Service, problem.Reason, problem.Message)
		}},
		kernel:    k,
		newGround: p.hostGround,
		flows:     conntrack.Cleaner{NetNS: p.netns},
		metrics:   p.metrics,
		health:    p.health,
		checks:    p.checks,
		events:    p.events,
		stale:     map[rules.Frontend]conntrack.Stale{},
	}
}

// sync applies all changes of the state. After an error nothing is recorded as
// programmed: the next sync reads back what is.
func (s *syncer) sync() error {
	s.metrics.ServiceChangesPending.Set(0)
	s.metrics.EndpointChangesPending.Set(0)
	changes := s.take()
	start := time.Now()
	full := s.resync || changes.Environment || s.ruleset == nil
	d, err := &rules.Delta{}, error(nil)
	if full {
		d, err = s.full()
	} else {
		d, err = s.partial(slices.SortedFunc(maps.Keys(changes.Services), rules.ServiceName.Compare))
	}
	took := time.Since(start)
	s.metrics.SyncDone(full, took, err)
	if err != nil {
		// What the next sync finds to be done is no sign of drift: it is our own.
		s.resync, s.suspicious = true, false
		s.health.Queued()
		return fmt.Errorf("sync: %w", err)
	}
	s.resync = false
	if full {
		s.early = s.state.Take() // while everything was compared
		s.tellRepaired(d, len(changes.Services)+len(s.early.Services) > 0 || changes.Environment || s.early.Environment)
		s.untidy = false // what was left over is in d
	}
	s.health.Updated()
	for _, t := range changes.Triggers {
		s.metrics.NetworkProgrammed(t.Family, time.Since(t.At))
	}
	s.after(d)
	s.checkPorts()
	s.measure()
	if full {
		s.suspicious, s.compared, s.compareTime = false, time.Now(), took
	}
	if !d.Empty() {
		klog.InfoS("Synced", "full", full, "services", len(changes.Services), "frontends", s.ruleset.Len(),
			"chains", len(d.Chains), "added", len(d.Add), "deleted", len(d.Delete), "duration", took)
	}
	return nil
}

// take returns what changed.
func (s *syncer) take() state.Changes {
	changes := s.state.Take()
	maps.Copy(changes.Services, s.early.Services)
	changes.Environment = changes.Environment || s.early.Environment
	changes.Triggers = append(s.early.Triggers, changes.Triggers...)
	s.early = state.Changes{}
	return changes
}

// partial programs the changes of some Services.
func (s *syncer) partial(names []rules.ServiceName) (*rules.Delta, error) {
	for _, name := range names {
		s.build(name, nil)
	}
	d := s.ruleset.Changes()
	s.noteStale(d)
	if d.Size() > 0 {
		if err := s.apply(d, 0); err != nil {
			return nil, err
		}
	}
	s.ruleset.Done()
	return d, nil
}

func (s *syncer) apply(d *rules.Delta, generation uint32) error {
	err := s.kernel.Apply(d, generation)
	s.metrics.TransactionDone(len(d.Add), len(d.Delete), err)
	return err
}

// staleAttempts bounds how often a full sync starts over because somebody, perhaps
// in another table, changed the ruleset between reading and writing.
const staleAttempts = 5

// full reads what is programmed, builds everything anew and programs the difference.
func (s *syncer) full() (*rules.Delta, error) {
	for attempt := 1; ; attempt++ {
		d, err := s.compareAndApply()
		if !errors.Is(err, nft.ErrStale) || attempt == staleAttempts {
			return d, err
		}
	}
}

func (s *syncer) compareAndApply() (*rules.Delta, error) {
	ruleset, d, generation, err := s.compare()
	if err != nil {
		return nil, err
	}
	s.noteStale(d)
	if d.Size() > 0 {
		if err := s.apply(d, generation); err != nil {
			return nil, err
		}
	}
	ruleset.Done()
	return d, nil
}

// compare builds the desired ruleset and finds what the kernel lacks of it.
// Backends stay in the slots that the kernel has them in.
func (s *syncer) compare() (*rules.Ruleset, *rules.Delta, uint32, error) {
	g, err := s.newGround()
	if err != nil {
		return nil, nil, 0, err
	}
	snapshot, err := s.kernel.Read(g.config.Families)
	if err != nil {
		return nil, nil, 0, err
	}
	s.ground, s.ruleset = g, rules.NewRuleset(g.config)
	slots := snapshot.Programmed.Slots()
	for _, name := range s.state.Services() {
		s.build(name, slots)
	}
	programmed, err := snapshot.Compare(s.ruleset.Chains)
	if err != nil {
		return nil, nil, 0, err
	}
	for f, t := range programmed {
		if t.Broken != "" {
			klog.InfoS("The table is replaced as a whole", "table", f, "reason", t.Broken)
		}
	}
	return s.ruleset, rules.Diff(s.ruleset, programmed), snapshot.Generation, nil
}

// after does what follows a transaction. What fails here is left for later: no
// connection suffers from it.
func (s *syncer) after(d *rules.Delta) {
	forgotten, err := s.kernel.Tidy(d)
	if err != nil {
		s.untidy = true
		klog.V(2).InfoS("Something stale is left for later", "err", err)
	}
	if forgotten > 0 {
		klog.V(2).InfoS("Forgot clients of endpoints that are gone", "clients", forgotten)
	}
	s.cleanFlows()
}

// cleanFlows deletes the flows that lead where they must not any more.
func (s *syncer) cleanFlows() {
	if len(s.stale) == 0 {
		return
	}
	stale, failed := slices.Collect(maps.Values(s.stale)), false
	for _, f := range s.ground.config.Families {
		start := time.Now()
		n, err := s.flows.Clean(f, stale)
		s.metrics.ConntrackReconciled(f, time.Since(start), n)
		if err != nil {
			klog.ErrorS(err, "Flows may still lead to endpoints that are gone")
			failed = true
		}
	}
	if failed {
		s.untidy = true
		return
	}
	clear(s.stale)
}

// tellRepaired tells of a repair of what somebody else did to the tables. On mere
// suspicion it is one only if there is nothing else that a full sync had to do.
func (s *syncer) tellRepaired(d *rules.Delta, changed bool) {
	if (s.drifted || s.suspicious && !changed) && d.Size() > 0 {
		s.metrics.DriftRepaired.Inc()
		s.events.nodeNote(corev1.EventTypeWarning, "DriftRepaired",
			fmt.Sprintf("somebody changed nftproxy's tables: %d chains, %d elements put right", len(d.Chains), len(d.Add)+len(d.Delete)))
	}
	s.drifted = false
}

// noteStale notes what flows are to be looked through once a Delta is committed.
func (s *syncer) noteStale(d *rules.Delta) {
	for _, stale := range d.Stale {
		s.stale[stale.Frontend] = conntrack.Stale(stale)
	}
}

// hostGround returns the ground with the host's addresses, where nodePorts need them.
func (p *Proxier) hostGround() (ground, error) {
	var addrs []netip.Addr
	if _, prefixes := p.config.NodePortAddresses(); len(prefixes) > 0 {
		var err error
		if addrs, err = p.host.Addrs(); err != nil {
			return ground{}, err
		}
	}
	return newGround(p.config, p.name, p.state, p.families, addrs), nil
}
