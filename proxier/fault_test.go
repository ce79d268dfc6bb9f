package proxier

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/configtest"
	"github.com/nftproxy/nftproxy/internal/fakekernel"
	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

var faultSeed = flag.Uint64("fault-seed", 0, "seed of the tests with faults; 0 is any")

// faulty is a kernel in which every call may fail, in every way that a call can fail.
type faulty struct {
	kernel  tables
	t       *testing.T
	w       *world
	percent int // how many calls fail

	read   bool // a Diff succeeded since a transaction failed
	failed bool // the last transaction failed
	// behind changes the ruleset between a Diff and the transaction that builds on it, as another process
	// could.
	behind func()
	faults map[string]int // how often each happened
	flows  map[flow]struct{}
	owners map[service.Frontend]service.Name // the last Service that had each frontend
}

// flow is a flow of UDP or SCTP that clients could have.
type flow struct {
	frontend service.Frontend
	backend  service.Backend
}

// refusals returns errors after which the kernel has committed nothing.
func refusals() []error {
	var errs []error
	for _, errno := range []unix.Errno{unix.ENOENT, unix.EEXIST, unix.EBUSY, unix.ENOBUFS, unix.EMSGSIZE,
		unix.EPERM, unix.ENOMEM, unix.EINVAL, unix.EINTR} {
		errs = append(errs, &netlink.Error{Errno: errno, MsgIndex: -1},
			&netlink.Error{Errno: errno, MsgIndex: 3, Offset: 40, What: "add element", More: 2})
	}
	return append(errs,
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

func (f *faulty) Diff(families []service.Family, build func(rules.Slots) *rules.Ruleset) (
	*rules.Delta, error) {
	lost := oneOf[error](f.w, netlink.ErrInterrupted, unix.ENOBUFS, unix.EPERM, unix.EMFILE)
	if f.happens("read") {
		return nil, lost
	}
	d, err := f.kernel.Diff(families, build)
	if f.happens("comparison") {
		return nil, lost
	}
	f.read = err == nil
	if f.behind != nil && f.w.chance(f.percent) {
		f.behind()
	}
	return d, err
}

func (f *faulty) Apply(d *rules.Delta) error {
	if f.failed && !f.read {
		f.t.Error("a transaction that builds on no Diff follows one that failed")
	}
	err := f.apply(d)
	f.failed, f.read = err != nil, false
	return err
}

// commit is a transaction that reaches the kernel. There are clients everywhere: every flow that can exist
// does.
func (f *faulty) commit(d *rules.Delta) error {
	if err := f.kernel.Apply(d); err != nil {
		return err
	}
	for _, e := range d.Add {
		if e.Set.Kind == nftables.Services {
			namespace, name, _ := strings.Cut(strings.Split(e.Comment, ":")[0], "/")
			f.owners[e.KeyValues().Frontend()] = service.Name{Namespace: namespace, Name: name}
		}
		if e.Set.Kind != nftables.Endpoints && e.Set.Kind != nftables.LocalEndpoints {
			continue
		}
		if to := e.KeyValues(); to.Protocol != service.TCP {
			by := e.DataValues()
			f.flows[flow{to.Frontend(), by.Backend()}] = struct{}{}
		}
	}
	return nil
}

// deleteFlows deletes flows, as conntrack.Clean does.
func (f *faulty) deleteFlows(_ context.Context, family service.Family, stale []service.StaleFlows) (
	int, []service.Frontend, error) {
	if f.happens("deletion of flows") {
		return 0, nil, unix.ENOBUFS
	}
	before := len(f.flows)
	former := map[service.Frontend]struct{}{}
	for _, s := range stale {
		maps.DeleteFunc(f.flows, func(l flow, _ struct{}) bool {
			if l.frontend != s.Frontend || service.FamilyOf(l.frontend.Addr) != family {
				return false
			}
			if s.Gone && l.among(s.Keep) {
				former[s.Frontend] = struct{}{}
			}
			return !l.among(s.Keep)
		})
	}
	return before - len(f.flows), slices.Collect(maps.Keys(former)), nil
}

// among reports whether the flow leads to one of the backends; port 0 means all ports.
func (l flow) among(backends []service.Backend) bool {
	return slices.Contains(backends, l.backend) ||
		slices.Contains(backends, netip.AddrPortFrom(l.backend.Addr(), 0))
}

// checkFlows fails if a flow goes on to an endpoint that was removed. If the frontend is gone, the endpoint
// has to be in a slice of the Service that had it.
func (f *faulty) checkFlows(t *testing.T, r *reconciler, meant []service.StaleFlows) {
	t.Helper()
	for l := range f.flows {
		keep := r.state.Alive(f.owners[l.frontend], l.frontend.Protocol)
		for _, s := range meant {
			if s.Frontend == l.frontend {
				keep = s.Keep
			}
		}
		if !l.among(keep) {
			t.Errorf("a flow goes on to an endpoint that was removed: %s to %s", l.frontend, l.backend)
		}
	}
}

func (f *faulty) apply(d *rules.Delta) error {
	lost := fmt.Errorf("commit nftables batch: %w: %w", netlink.ErrUnknownOutcome,
		oneOf(f.w, unix.EAGAIN, unix.ENOBUFS))
	switch {
	case f.happens("refused"):
		errs := refusals()
		return fmt.Errorf("commit nftables batch: %w", errs[f.w.IntN(len(errs))])
	case f.happens("acknowledgement lost"):
		return errors.Join(lost, f.commit(d)) // committed, unless refused
	case f.happens("transaction lost"):
		return lost
	}
	return f.commit(d)
}

func (f *faulty) DeleteStale(d *rules.Delta) error {
	if len(d.StaleChains)+len(d.StaleSets) == 0 {
		return f.kernel.DeleteStale(d)
	}
	switch {
	case f.happens("cleanup refused"):
		return oneOf[error](f.w, unix.EBUSY, unix.ENOBUFS, unix.ENOENT)
	case f.happens("cleanup not acknowledged"):
		err := f.kernel.DeleteStale(d)
		return errors.Join(netlink.ErrUnknownOutcome, err)
	}
	return f.kernel.DeleteStale(d)
}

func (f *faulty) CheckDrift(want *rules.Ruleset) (kernel.Drift, error) {
	if f.happens("check") {
		_, err := f.kernel.CheckDrift(want) // the result is lost
		return oneOf(f.w, kernel.Unchanged, kernel.Drifted),
			errors.Join(err, oneOf(f.w, unix.ENOBUFS, unix.EPERM), netlink.ErrInterrupted)
	}
	return f.kernel.CheckDrift(want)
}

// steal removes an element, as another process could.
func (w *world) steal(ts fakekernel.Tables) {
	var ids []nftables.ElementID
	for _, f := range service.Families() {
		if t := ts[f]; t != nil {
			ids = slices.AppendSeq(ids, maps.Keys(t.Elements))
		}
	}
	if len(ids) == 0 {
		return
	}
	slices.SortFunc(ids, nftables.ElementID.Compare) // so that a seed does the same again
	id := oneOf(w, ids...)
	delete(ts[id.Set.Family].Elements, id)
}

// TestFaultsInFakeKernel lets calls of a fake kernel fail at random: the reconciler records what was
// committed, and in the end everything is in sync.
func TestFaultsInFakeKernel(t *testing.T) {
	faults := map[string]int{}
	seeds := []uint64{*faultSeed}
	if *faultSeed == 0 {
		seeds = make([]uint64, 30)
		for i := range seeds {
			seeds[i] = rand.Uint64()
		}
	}
	for _, seed := range seeds {
		k := fakekernel.New()
		f := &faulty{kernel: k, faults: faults}
		f.behind = func() { k.Edit(f.w.steal) }
		run := func(t *testing.T) { f.suffer(t, seed, 30) }
		if !t.Run(fmt.Sprintf("-fault-seed=%d", seed), run) {
			break
		}
	}
	for _, what := range []string{"refused", "acknowledgement lost", "transaction lost", "cleanup refused",
		"cleanup not acknowledged", "deletion of flows", "read", "comparison", "check"} {
		if faults[what] == 0 && len(seeds) > 1 {
			t.Errorf("this fault never happened: %s", what)
		}
	}
	t.Logf("faults: %v", faults)
}

// TestFaultsInKernel is the same with a real kernel behind the faults, where another process writes between
// reading and writing.
func TestFaultsInKernel(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	seed := *faultSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-fault-seed=%d", seed)
	ns := ownNamespace(t)
	f := &faulty{kernel: dial(t, ns, kernel.Options{}), faults: map[string]int{}}
	f.behind = func() {
		nftIn(t, ns, "", slices.Concat([]string{"add", "table"},
			oneOf(f.w, []string{"ip", "other"}, []string{"ip6", "other"}))...)
	}
	f.suffer(t, seed, 60)
	t.Logf("faults: %v", f.faults)
}

// suffer changes objects and syncs, that often, with faults, and checks the result.
func (f *faulty) suffer(t *testing.T, seed uint64, rounds int) {
	f.t, f.w, f.percent = t, newWorld(seed, 12), 15
	f.flows, f.owners = map[flow]struct{}{}, map[service.Frontend]service.Name{}
	c := configtest.Case(t, "", t.TempDir())
	p, r := newStandalone(t, c, f)
	r.deleteFlows = f.deleteFlows
	for range rounds {
		for range f.w.IntN(5) {
			f.w.change(p)
		}
		if f.w.chance(20) {
			r.require(failed)
		}
		err := syncWhole(t, r)
		if err == nil && r.due != none {
			t.Fatalf("a sync that succeeded requires another one: %s", r.due)
		}
		if err != nil && r.due < failed {
			t.Fatalf("a sync that failed requires no other one: %s, %v", r.due, err)
		}
		f.failed = f.failed && err != nil // it may have been committed after all
		written := f.checkDrift(r)
		if err == nil && !written {
			if mayFlow := f.w.checkSync(t, r, c, f.kernel); r.cleanup.due == nil {
				f.checkFlows(t, r, mayFlow)
			}
		}
	}
	f.percent = 0
	if r.cleanup.due != nil {
		r.require(leftovers)
	}
	for r.due != none {
		if err := syncWhole(t, r); err != nil {
			t.Fatalf("without faults: %v", err)
		}
		f.checkDrift(r)
	}
	f.checkFlows(t, r, f.w.checkSync(t, r, c, f.kernel))
	if r.cleanup.due != nil {
		t.Error("something is left over")
	}
}

// checkDrift lets the reconciler check for drift, long after everything was compared. It reports whether
// another process may have written.
func (f *faulty) checkDrift(r *reconciler) bool {
	r.compare.last = time.Time{}
	r.checkDrift()
	return r.due != none
}
