package proxier

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/conntrack"
	"github.com/nftproxy/nftproxy/proxier/nft"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

var faultSeed = flag.Uint64("fault-seed", 0, "seed of the tests with faults; 0 is any")

// faulty is a kernel in which every call may fail, in every way that a call can.
type faulty struct {
	kernel
	t       *testing.T
	w       *world
	percent int // of the calls fail

	read   bool // since a transaction failed
	failed bool // the transaction before
	// behind is done between a Read and what builds on it, by somebody else.
	behind func()
	faults map[string]int // how often each happened
	flows  map[flow]struct{}
}

// flow is a flow of UDP or SCTP that clients could have.
type flow struct {
	frontend service.Frontend
	backend  service.Backend
}

// refusals are what the kernel says to a batch of which it takes nothing.
func refusals() []error {
	var errs []error
	for _, errno := range []unix.Errno{unix.ENOENT, unix.EEXIST, unix.EBUSY, unix.ENOBUFS, unix.EMSGSIZE, unix.EPERM, unix.ENOMEM, unix.EINVAL, unix.EINTR} {
		errs = append(errs, &nft.Error{Errno: errno, MsgIndex: -1}, &nft.Error{Errno: errno, MsgIndex: 3, Offset: 40, What: "add element", More: 2})
	}
	return append(errs,
		&nft.Error{Errno: unix.ERESTART, MsgIndex: -1}, // ErrStale
		fmt.Errorf("open nftables socket: %w", unix.EMFILE),
		fmt.Errorf("send 20 bytes: %w", unix.ECONNREFUSED))
}

func (f *faulty) happens(what string) bool {
	if !f.w.chance(f.percent) {
		return false
	}
	f.faults[what]++
	return true
}

func (f *faulty) Read(families []service.Family) (*nft.Snapshot, error) {
	snapshot, err := f.kernel.Read(families)
	if f.happens("read") {
		return snapshot, oneOf[error](f.w, nft.ErrInterrupted, unix.ENOBUFS, unix.EPERM, unix.EMFILE)
	}
	f.read = err == nil
	if f.behind != nil && f.w.chance(f.percent) {
		f.behind()
	}
	return snapshot, err
}

func (f *faulty) Apply(d *rules.Delta, generation uint32) error {
	if f.failed && (!f.read || generation == 0) {
		f.t.Error("after a transaction that failed, one that builds on no reading")
	}
	err := f.apply(d, generation)
	f.failed, f.read = err != nil, false
	return err
}

// commit is a transaction that reaches the kernel. There are clients everywhere: what
// can flow does.
func (f *faulty) commit(d *rules.Delta, generation uint32) error {
	if err := f.kernel.Apply(d, generation); err != nil {
		return err
	}
	for _, e := range d.Add {
		if e.Set.Kind != nftables.Endpoints && e.Set.Kind != nftables.LocalEndpoints {
			continue
		}
		if to := e.KeyValues(); to.Protocol != service.TCP {
			by := e.DataValues()
			f.flows[flow{service.Frontend{Addr: to.Addrs[0], Protocol: to.Protocol, Port: to.Port}, netip.AddrPortFrom(by.Addrs[0], by.Port)}] = struct{}{}
		}
	}
	return nil
}

// Clean deletes flows, as a conntrack.Cleaner does.
func (f *faulty) Clean(family service.Family, stale []conntrack.Stale) (int, error) {
	if f.happens("cleaning") {
		return 0, unix.ENOBUFS
	}
	before := len(f.flows)
	for _, s := range stale {
		maps.DeleteFunc(f.flows, func(l flow, _ struct{}) bool {
			return l.frontend == s.Frontend && service.FamilyOf(l.frontend.Addr) == family && !slices.Contains(s.Keep, l.backend)
		})
	}
	return before - len(f.flows), nil
}

// checkFlows fails if a flow goes on to an endpoint that is gone.
func (f *faulty) checkFlows(t *testing.T, meant []rules.Stale) {
	t.Helper()
	for l := range f.flows {
		if !slices.ContainsFunc(meant, func(s rules.Stale) bool { return s.Frontend == l.frontend && slices.Contains(s.Keep, l.backend) }) {
			t.Errorf("a flow goes on to an endpoint that is gone: %s to %s", l.frontend, l.backend)
		}
	}
}

func (f *faulty) apply(d *rules.Delta, generation uint32) error {
	lost := fmt.Errorf("commit nftables batch: %w: %w", nft.ErrUnknownOutcome, oneOf(f.w, unix.EAGAIN, unix.ENOBUFS))
	switch {
	case f.happens("refused"):
		errs := refusals()
		return fmt.Errorf("commit nftables batch: %w", errs[f.w.IntN(len(errs))])
	case f.happens("acknowledgement lost"):
		return errors.Join(lost, f.commit(d, generation)) // committed, unless refused
	case f.happens("transaction lost"):
		return lost
	}
	return f.commit(d, generation)
}

func (f *faulty) DeleteStale(d *rules.Delta) (int, error) {
	if len(d.StaleChains)+len(d.StaleSets)+len(d.ExpireClients) == 0 {
		return f.kernel.DeleteStale(d)
	}
	switch {
	case f.happens("tidying refused"):
		return 0, oneOf[error](f.w, unix.EBUSY, unix.ENOBUFS, unix.ENOENT)
	case f.happens("tidying not acknowledged"):
		n, err := f.kernel.DeleteStale(d)
		return n, errors.Join(nft.ErrUnknownOutcome, err)
	}
	return f.kernel.DeleteStale(d)
}

func (f *faulty) CheckDrift(want nft.Outline) (nft.Drift, error) {
	if f.happens("look") {
		_, err := f.kernel.CheckDrift(want) // what it saw is not told
		return oneOf(f.w, nft.Unchanged, nft.Drifted), errors.Join(err, oneOf(f.w, unix.ENOBUFS, unix.EPERM), nft.ErrInterrupted)
	}
	return f.kernel.CheckDrift(want)
}

// generations gives the model what the kernel has: a generation that moves with every
// transaction, and that a transaction can be bound to.
type generations struct {
	*model
	now, expected uint32
}

func (g *generations) Read(families []service.Family) (*nft.Snapshot, error) {
	s, err := g.model.Read(families)
	s.Generation = g.now
	return s, err
}

func (g *generations) Apply(d *rules.Delta, generation uint32) error {
	if generation != 0 && generation != g.now {
		return &nft.Error{Errno: unix.ERESTART, MsgIndex: -1}
	}
	g.now++
	g.expected++
	return g.model.Apply(d, generation)
}

func (g *generations) CheckDrift(nft.Outline) (nft.Drift, error) {
	if g.now == g.expected {
		return nft.Unchanged, nil
	}
	g.expected = g.now
	return nft.Unknown, nil
}

func newGenerations() *generations {
	return &generations{model: newModel(), now: 1, expected: 1}
}

// steal takes an element away, as somebody else could.
func (g *generations) steal(w *world) {
	var ids []nftables.ElementID
	for _, f := range service.Families() {
		if t := g.holds[f]; t != nil {
			ids = slices.AppendSeq(ids, maps.Keys(t.Elements))
		}
	}
	if len(ids) == 0 {
		return
	}
	slices.SortFunc(ids, nftables.ElementID.Compare) // a seed is to do the same again
	id := oneOf(w, ids...)
	delete(g.holds[id.Set.Family].Elements, id)
	g.now++
}

// TestFaultsInModel makes calls of a model of the kernel fail at random: what is
// recorded is what was committed, and in the end all is in sync.
func TestFaultsInModel(t *testing.T) {
	faults := map[string]int{}
	seeds := []uint64{*faultSeed}
	if *faultSeed == 0 {
		seeds = make([]uint64, 30)
		for i := range seeds {
			seeds[i] = rand.Uint64()
		}
	}
	for _, seed := range seeds {
		k := newGenerations()
		f := &faulty{kernel: k, faults: faults}
		f.behind = func() { k.steal(f.w) }
		run := func(t *testing.T) { f.suffer(t, seed, 30) }
		if !t.Run(fmt.Sprintf("-fault-seed=%d", seed), run) {
			break
		}
	}
	for _, what := range []string{"refused", "acknowledgement lost", "transaction lost", "tidying refused", "tidying not acknowledged", "cleaning", "read", "look"} {
		if faults[what] == 0 && len(seeds) > 1 {
			t.Errorf("this fault never happened: %s", what)
		}
	}
	t.Logf("faults: %v", faults)
}

// TestFaultsInKernel is the same with a real kernel behind the faults, where somebody
// else writes between reading and writing, and the connection is lost.
func TestFaultsInKernel(t *testing.T) {
	seed := *faultSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-fault-seed=%d", seed)
	ns := newNamespace(t)
	conn, err := nft.Dial(nft.Options{NetNS: ns.FD()})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	f := &faulty{kernel: conn, faults: map[string]int{}}
	f.behind = func() {
		nftIn(t, ns, "", slices.Concat([]string{"add", "table"}, oneOf(f.w, []string{"ip", "other"}, []string{"ip6", "other"}))...)
	}
	f.suffer(t, seed, 60)
	t.Logf("faults: %v", f.faults)
}

// suffer changes objects and syncs, that often, with faults, and looks at what becomes of it.
func (f *faulty) suffer(t *testing.T, seed uint64, rounds int) {
	f.t, f.w, f.percent, f.flows = t, newWorld(seed, 12), 15, map[flow]struct{}{}
	c := caseConfig(t, "", t.TempDir())
	p, s := newStandalone(t, c, f)
	s.flows = f
	for range rounds {
		for range f.w.IntN(5) {
			f.w.change(p)
		}
		if f.w.chance(20) {
			s.resync = true
		}
		err := s.sync()
		if err == nil && s.resync {
			t.Fatal("a sync that worked asks for another")
		}
		if err != nil && !s.resync {
			t.Fatalf("a sync that failed asks for no other: %v", err)
		}
		f.failed = f.failed && err != nil // it may have been committed after all
		stolen := f.look(t, s)
		if err == nil && !stolen {
			if mayFlow := f.w.checkSync(t, s, c, f.kernel); !s.untidy {
				f.checkFlows(t, mayFlow)
			}
		}
	}
	f.percent = 0
	for s.resync = s.resync || s.untidy; s.resync; {
		if err := s.sync(); err != nil {
			t.Fatalf("without faults: %v", err)
		}
		f.look(t, s)
	}
	f.checkFlows(t, f.w.checkSync(t, s, c, f.kernel))
	if s.untidy {
		t.Error("something is left over")
	}
}

// look has the syncer look as the loop does, long after everything was compared, and
// reports whether somebody wrote.
func (f *faulty) look(t *testing.T, s *syncer) bool {
	s.compared = time.Time{}
	_ = s.look()
	return s.resync
}
