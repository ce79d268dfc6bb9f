package proof

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/nftproxy/nftproxy/internal/configtest"
	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/internal/proof/bytecode"
	"github.com/nftproxy/nftproxy/internal/proof/spec"
	"github.com/nftproxy/nftproxy/proxier/config"
	"github.com/nftproxy/nftproxy/proxier/desired"
	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/proxier/state"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

const stepsDir = "../../testdata/sync"

// TestTransitions takes the kernel through the steps of each case. After each transaction of a step, every
// class of packets has the outcomes that the objects after the step allow. The chains are all of type nat, so
// connections that exist meet none.
//
// A packet that is on its way at the moment of the commit may meet rules and elements of before and of after:
// the kernel's generation is that of each lookup, not that of the packet. It may find no endpoint then, and
// is as one to a port that no Service has. It never reaches an endpoint that the Service has neither before
// nor after the step.
func TestTransitions(t *testing.T) {
	var visited, total, torn atomic.Int64
	t.Run("cases", func(t *testing.T) {
		for _, name := range cases(t, stepsDir) {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w := newWalk(t, filepath.Join(stepsDir, name))
				for before, after, ok := w.next(t); ok; before, after, ok = w.next(t) {
					j := &transition{judge: newJudge(t, w.config, after.committed, after.cluster), before: before}
					j.meanwhile = *j.machine
					j.meanwhile.Ruleset, j.meanwhile.Later = before.cleaned, after.committed
					j.cleaned = newJudge(t, w.config, after.cleaned, after.cluster)
					for _, family := range families() {
						classes, err := newClasses(family,
							[]*bytecode.Ruleset{before.cleaned, after.committed, after.cleaned},
							[]*spec.Cluster{before.cluster, after.cluster})
						if err != nil {
							t.Fatal(err)
						}
						visited.Add(int64(classes.visit(limit(), j.packet)))
						total.Add(int64(classes.count()))
					}
					torn.Add(j.torn)
				}
			})
		}
	})
	t.Logf("%d of %d classes; in %d of them a packet on its way may meet both generations",
		visited.Load(), total.Load(), torn.Load())
}

// transition judges the packets of one step.
type transition struct {
	*judge    // after the transaction
	cleaned   *judge
	before    world
	meanwhile bytecode.Machine
	torn      int64
}

func (j *transition) packet(p bytecode.Packet) {
	j.judge.packet(p)
	j.cleaned.packet(p)
	allowed, _ := j.allowed(p)
	earlier := judge{cluster: j.before.cluster, bit: j.bit}
	old, _ := earlier.allowed(p)
	during, err := j.meanwhile.Outcomes(p, nil, nil)
	if err != nil {
		j.report(p, "%v", err)
		return
	}
	torn := false
	either := append(old, allowed...)
	for _, o := range during {
		serves := func(a spec.Outcome) bool { return a.Verdict == spec.Translated && a.Endpoint == o.Endpoint }
		switch {
		case slices.Contains(either, specOutcome(o)):
		case o.Verdict != bytecode.Translated, slices.ContainsFunc(either, serves):
			torn = true
		default:
			j.report(p, "during the commit: %+v, allowed is %+v", o, either)
		}
	}
	if torn {
		j.torn++
	}
}

// world is the cluster and the kernel at one step.
type world struct {
	cluster   *spec.Cluster
	committed *bytecode.Ruleset // after the transaction of the step
	cleaned   *bytecode.Ruleset // after that which deletes what is not used any more
}

// walk programs the steps of a case as the reconciler does.
type walk struct {
	dir     string
	config  *config.Config
	ns      *lab.Namespace
	conn    *kernel.Conn
	state   *state.State
	builder *desired.Builder
	n       int
	objects map[string]runtime.Object
	last    world
}

func newWalk(t *testing.T, dir string) *walk {
	w := &walk{dir: dir, config: configtest.Case(t, dir, dir), ns: lab.TestNamespace(t), state: state.New(nodeName)}
	w.conn = dial(t, w.ns)
	w.builder = desired.NewBuilder(w.state, func(desired.Problem) {})
	w.next(t) // from nothing
	return w
}

// next programs the next step, and returns what was before it and what is after it.
func (w *walk) next(t *testing.T) (before, after world, ok bool) {
	t.Helper()
	w.n++
	file := filepath.Join(w.dir, fmt.Sprintf("%d.yaml", w.n))
	if !exists(file) {
		if w.n <= 2 {
			t.Fatalf("%s has no second step", w.dir)
		}
		return before, after, false
	}
	objects := load(t, file)
	w.apply(objects)
	delta, err := w.delta()
	if err == nil && delta.Size() > 0 {
		err = w.conn.Apply(delta)
	}
	if err != nil {
		t.Fatalf("step %d: %v", w.n, err)
	}
	w.builder.Ruleset().Done()
	before = w.last
	w.last = world{cluster: cluster(t, w.config, objects, w.state.Node().Addrs), committed: dump(t, w.ns)}
	if err := w.conn.DeleteStale(delta); err != nil {
		t.Fatalf("step %d: %v", w.n, err)
	}
	w.last.cleaned = dump(t, w.ns)
	for _, table := range w.last.committed.Tables {
		for _, c := range table.Chains {
			if c.Hook != nil && c.Hook.Type != "nat" {
				t.Errorf("%s meets packets of connections that exist", c)
			}
		}
	}
	return before, w.last, true
}

// apply brings the state to the objects of a step.
func (w *walk) apply(objects []runtime.Object) {
	now := map[string]runtime.Object{}
	for _, o := range objects {
		named := o.(interface {
			GetName() string
			GetNamespace() string
		})
		now[fmt.Sprintf("%T %s/%s", o, named.GetNamespace(), named.GetName())] = o
		w.state.Apply(o)
	}
	for id, o := range w.objects {
		if now[id] == nil {
			w.state.Delete(o)
		}
	}
	w.objects = now
}

// delta returns what the step changes: all that differs from the kernel where the environment has changed,
// otherwise the changes of its Services.
func (w *walk) delta() (*rules.Delta, error) {
	changes := w.state.Take()
	if changes.Environment || w.builder.Ruleset() == nil {
		addrs := w.state.Node().Addrs
		e := desired.NewEnvironment(w.config, nodeName, w.state, service.Families(), addrs)
		return w.conn.Diff(service.Families(), func(s rules.Slots) *rules.Ruleset {
			return w.builder.Rebuild(e, s)
		})
	}
	w.builder.Update(slices.SortedFunc(maps.Keys(changes.Services), service.Name.Compare)...)
	return w.builder.Ruleset().Changes(), nil
}
