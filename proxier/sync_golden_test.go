package proxier

import (
	"bytes"
	"fmt"
	"path/filepath"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/nftproxy/nftproxy/internal/configtest"
	"github.com/nftproxy/nftproxy/internal/fakekernel"
	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/desired"
	"github.com/nftproxy/nftproxy/proxier/source"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

const stepsDir = "../testdata/sync"

// recorder is a fake kernel that keeps the last Delta.
type recorder struct {
	*fakekernel.Kernel
	last rules.Delta
}

func (r *recorder) Apply(d *rules.Delta) error {
	r.last = *d
	return r.Kernel.Apply(d)
}

func (r *recorder) DeleteStale(d *rules.Delta) error {
	r.last.StaleChains, r.last.StaleSets = d.StaleChains, d.StaleSets
	return r.Kernel.DeleteStale(d)
}

// steps walks through the manifests 1.yaml, 2.yaml, ... of a case. Each has all objects that exist at that
// step.
type steps struct {
	dir     string
	n       int
	objects map[string]runtime.Object
}

// next applies the next step, if there is one.
func (s *steps) next(t *testing.T, p *Proxier) bool {
	t.Helper()
	s.n++
	file := filepath.Join(s.dir, fmt.Sprintf("%d.yaml", s.n))
	if !exists(file) {
		return false
	}
	objects, problems, err := source.NewDir(file).Load()
	if err != nil || len(problems) > 0 {
		t.Fatal(err, problems)
	}
	now := map[string]runtime.Object{}
	for _, obj := range objects {
		now[identity(obj)] = obj
		p.Apply(obj)
	}
	for id, obj := range s.objects {
		if now[id] == nil {
			p.Delete(obj)
		}
	}
	s.objects = now
	return true
}

// identity returns kind, namespace and name of an object.
func identity(obj runtime.Object) string {
	o := obj.(interface {
		GetName() string
		GetNamespace() string
	})
	return fmt.Sprintf("%T %s/%s", obj, o.GetNamespace(), o.GetName())
}

// TestGoldenSync compares the changes of each step of a case with testdata/sync/<case>/delta.nft. After each
// step the kernel holds the whole ruleset.
func TestGoldenSync(t *testing.T) {
	for _, name := range cases(t, stepsDir) {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(stepsDir, name)
			p, err := New(Options{Config: configtest.Case(t, dir, dir)})
			if err != nil {
				t.Fatal(err)
			}
			p.setFamilies(service.Families())
			k := &recorder{Kernel: fakekernel.New()}
			r := p.newReconciler(k)
			r.deleteFlows = noFlows
			r.env = func() (desired.Environment, error) {
				return desired.NewEnvironment(p.config, p.name, p.state, p.families, nil), nil
			}
			var out bytes.Buffer
			for steps := (&steps{dir: dir}); steps.next(t, p); {
				k.last = rules.Delta{}
				if err := syncWhole(t, r); err != nil {
					t.Fatal(err)
				}
				if steps.n > 1 { // testdata/rules has cases for the first step
					fmt.Fprintf(&out, "# step %d\n", steps.n)
					if err := k.last.WriteText(&out); err != nil {
						t.Fatal(err)
					}
				}
				ruleset := r.builder.Ruleset()
				left := rules.Diff(ruleset, k.Tables().Programmed(ruleset))
				if left.Size()+len(left.StaleSets) > 0 {
					t.Errorf("step %d: the kernel does not hold the ruleset: %+v", steps.n, left)
				}
			}
			if out.Len() == 0 {
				t.Fatalf("%s has no second step: an orphan", dir)
			}
			golden(t, filepath.Join(dir, "delta.nft"), out.Bytes())
		})
	}
}

// TestKernelSync takes each case through its steps in the kernel. After each one nothing is left to be
// changed, also for a Proxier that has just started.
func TestKernelSync(t *testing.T) {
	for _, name := range cases(t, stepsDir) {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(stepsDir, name)
			ns := lab.TestNamespace(t)
			n := newNode(t, dir, dir, ns)
			for steps := (&steps{dir: dir}); steps.next(t, n.Proxier); {
				n.sync(t)
				fresh := newNode(t, dir, dir, ns)
				fresh.load(t, filepath.Join(dir, fmt.Sprintf("%d.yaml", steps.n)))
				if d := fresh.diff(t); d.Size() > 0 {
					t.Errorf("step %d: the kernel does not hold the ruleset: %+v", steps.n, d)
				}
				nftIn(t, ns, "", "list", "ruleset")
			}
		})
	}
}
