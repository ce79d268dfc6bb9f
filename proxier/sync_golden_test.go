package proxier

import (
	"bytes"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/nftproxy/nftproxy/proxier/nft"
	"github.com/nftproxy/nftproxy/proxier/source"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

const stepsDir = "../testdata/sync"

// model is a kernel that takes everything, holds what it was given, and keeps the last Delta.
type model struct {
	holds  rules.Programmed
	chains map[string]nftables.Chain
	last   rules.Delta
}

func newModel() *model { return &model{holds: rules.Programmed{}, chains: map[string]nftables.Chain{}} }

func (m *model) Read([]service.Family) (*nft.Snapshot, error) {
	return nft.SnapshotOf(m.holds, slices.Collect(maps.Values(m.chains)))
}

func (m *model) Apply(d *rules.Delta, _ uint32) error {
	m.last = *d
	for _, f := range d.Tables {
		m.holds[f] = rules.NewTable()
	}
	for _, s := range d.Sets {
		m.holds[s.ID.Family].Sets[s.Name] = struct{}{}
	}
	for _, c := range d.Chains {
		m.holds[c.Family].Chains[c.Name] = false
		m.chains[c.Family.String()+c.Name] = c
	}
	for _, e := range d.Delete {
		delete(m.holds[e.Set.Family].Elements, e.ElementID)
	}
	for _, e := range d.Add {
		m.holds[e.Set.Family].Elements[e.ElementID] = e
	}
	return nil
}

func (m *model) DeleteStale(d *rules.Delta) (int, error) {
	m.last.StaleChains, m.last.StaleSets, m.last.ExpireClients = d.StaleChains, d.StaleSets, d.ExpireClients
	for _, c := range d.StaleChains {
		delete(m.holds[c.Family].Chains, c.Name)
		delete(m.chains, c.Family.String()+c.Name)
	}
	for _, s := range d.StaleSets {
		delete(m.holds[s.ID.Family].Sets, s.Name)
	}
	return 0, nil
}

func (m *model) CheckDrift(nft.Outline) (nft.Drift, error) { return nft.Unchanged, nil }

// steps walks through the manifests 1.yaml, 2.yaml, ... of a case, each the whole of
// what there is at that step.
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

// TestGoldenSync compares what each step of a case writes with testdata/sync/<case>/delta.nft.
func TestGoldenSync(t *testing.T) {
	for _, name := range cases(t, stepsDir) {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(stepsDir, name)
			p, err := New(Options{Config: caseConfig(t, dir, dir)})
			if err != nil {
				t.Fatal(err)
			}
			p.families = service.Families()
			k := newModel()
			s := p.newSyncer(k)
			s.newEnvironment = func() (environment, error) { return newEnvironment(p.config, p.name, p.state, p.families, nil), nil }
			var out bytes.Buffer
			for steps := (&steps{dir: dir}); steps.next(t, p); {
				k.last = rules.Delta{}
				if err := s.sync(); err != nil {
					t.Fatal(err)
				}
				if steps.n > 1 { // the first step is what testdata/rules is about
					fmt.Fprintf(&out, "# step %d\n", steps.n)
					if err := k.last.WriteText(&out); err != nil {
						t.Fatal(err)
					}
				}
			}
			if out.Len() == 0 {
				t.Fatalf("%s has no second step: an orphan", dir)
			}
			golden(t, filepath.Join(dir, "delta.nft"), out.Bytes())
		})
	}
}

// TestKernelSync takes each case through its steps in the kernel: after each one
// nothing is left to be changed, and a proxier that starts afresh writes nothing.
func TestKernelSync(t *testing.T) {
	for _, name := range cases(t, stepsDir) {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(stepsDir, name)
			ns := newNamespace(t)
			n := newNode(t, dir, dir, ns)
			for steps := (&steps{dir: dir}); steps.next(t, n.Proxier); {
				n.sync(t)
				fresh := newNode(t, dir, dir, ns)
				fresh.load(t, filepath.Join(dir, fmt.Sprintf("%d.yaml", steps.n)))
				_, d, _, err := fresh.syncer.compare()
				if err != nil {
					t.Fatal(err)
				}
				if d.Size() > 0 {
					t.Errorf("step %d: the kernel is not what is desired: %+v", steps.n, d)
				}
				nftIn(t, ns, "", "list", "ruleset")
			}
		})
	}
}
