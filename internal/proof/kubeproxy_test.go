package proof

import (
	"errors"
	"io/fs"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nftproxy/nftproxy/internal/configtest"
	"github.com/nftproxy/nftproxy/internal/proof/bytecode"
	"github.com/nftproxy/nftproxy/internal/proof/recording"
	"github.com/nftproxy/nftproxy/internal/proof/spec"
	"github.com/nftproxy/nftproxy/proxier/config"
)

// tablesDir has what kube-proxy programs for the cases of testdata/rules. `make kubeproxy-dumps` records it.
const tablesDir = "../../testdata/kubeproxy/tables"

// TestKubeProxy runs the classes of packets of each case through the tables of kube-proxy: where one has
// another fate than the specification allows, a difference that the documentation has explains it. A
// difference that no class shows any more fails as well.
func TestKubeProxy(t *testing.T) {
	seen := counts{n: map[string]int{}}
	all := cases(t, rulesDir)
	t.Run("cases", func(t *testing.T) {
		for _, name := range all {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				compareKubeProxy(t, name, &seen)
				seen.add(compared, 1)
			})
		}
	})
	t.Logf("%d classes", seen.n[everything])
	table, err := os.ReadFile("../../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range differences() {
		if !strings.Contains(string(table), "\n| "+d.what) {
			t.Errorf("docs/compatibility.md does not have the difference: %s", d.what)
		}
		t.Logf("%d classes: %s", seen.n[d.what], d.what)
		if seen.n[d.what] == 0 && seen.n[compared] == len(all) { // -run selects others
			t.Errorf("no class shows the difference: %s", d.what)
		}
	}
}

// counts are numbers of classes by the difference that they show.
type counts struct {
	mu sync.Mutex
	n  map[string]int
}

// Counts of other things: all classes, and the cases.
const everything, compared = "", "cases"

func (c *counts) add(what string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[what] += n
}

// compareKubeProxy compares a case and adds the classes in which kube-proxy differs.
func compareKubeProxy(t *testing.T, name string, seen *counts) {
	t.Helper()
	tables, err := recording.Open(filepath.Join(tablesDir, name+".gz"))
	what := withoutTables()[name]
	switch {
	case errors.Is(err, fs.ErrNotExist) && what != "":
		seen.add(what, 1)
		return
	case errors.Is(err, fs.ErrNotExist):
		t.Fatalf("kube-proxy's tables are not recorded: run make kubeproxy-dumps CASES=%s", name)
	case err != nil:
		t.Fatal(err)
	case what != "":
		t.Fatalf("kube-proxy has tables now, in spite of the difference: %s", what)
	}
	theirs, err := bytecode.Read(tables)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(rulesDir, name)
	manifests := filepath.Join(dir, "input.yaml")
	c, objects := configtest.Case(t, dir, manifests), load(t, manifests)
	for i, host := range recordedHosts(c, hosts(objects)) {
		j := newJudge(t, c, theirs, cluster(t, c, objects, host))
		v := &comparison{judge: j, seen: map[string]int{}}
		for _, family := range families() {
			classes, err := newClasses(family, []*bytecode.Ruleset{theirs}, []*spec.Cluster{j.cluster})
			if err != nil {
				t.Fatal(err)
			}
			classes.priorities = classes.priorities[:1] // neither of both reads it
			most := limit()
			if i == 0 {
				most = math.MaxInt // there are few
			}
			seen.add(everything, classes.visit(most, v.packet))
		}
		for what, n := range v.seen {
			seen.add(what, n)
		}
	}
}

// recordedHosts returns the hosts that a recording is for. With ranges in nodePortAddresses kube-proxy's
// tables have the addresses of the host in these ranges: those of the first host.
func recordedHosts(c *config.Config, hosts [][]netip.Addr) [][]netip.Addr {
	for _, text := range c.Kube.NodePortAddresses {
		if r, err := netip.ParsePrefix(text); err == nil && r.Bits() > 0 {
			return hosts[:1]
		}
	}
	return hosts
}

// comparison compares kube-proxy with the specification.
type comparison struct {
	*judge
	seen map[string]int // number of classes by difference
}

// packet compares the outcomes of a packet. Where they are the same, what kube-proxy leaves in the packet and
// the endpoint of a client that comes again have to be right as well.
func (c *comparison) packet(p bytecode.Packet) {
	allowed, affinity := c.allowed(p)
	var err error
	if c.outcomes, err = c.machine.Outcomes(p, nil, c.outcomes[:0]); err != nil {
		c.report(p, "%v", err)
		return
	}
	d := pair{packet: p, cluster: c.cluster, ours: allowed, theirs: specOutcomes(c.outcomes)}
	if d.same() {
		for _, o := range c.outcomes {
			c.left(p, o, affinity)
		}
		if affinity > 0 {
			c.returns(p, affinity)
		}
		return
	}
	d.facts = d.cluster.Facts(specPacket(p, c.bit))
	if what := d.difference(); what != "" {
		c.seen[what]++
		return
	}
	c.report(p, "kube-proxy says %+v, allowed is %+v", specOutcomes(c.outcomes), d.ours)
}

// specOutcomes returns the outcomes that the specification distinguishes, each once.
func specOutcomes(all []bytecode.Outcome) (out []spec.Outcome) {
	for _, o := range all {
		if s := specOutcome(o); !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}
