package proof

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/internal/proof/bytecode"
	"github.com/nftproxy/nftproxy/internal/proof/spec"
)

// kubeProxyDir has what kube-proxy 1.37.1 programs for cases of testdata/rules, and the program that has
// written it there.
const kubeProxyDir = "../../testdata/kube-proxy"

// TestKubeProxy runs the classes of packets through the rules of kube-proxy for the same objects: where they
// have another fate than with nftproxy, a difference that the documentation has explains it.
func TestKubeProxy(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(kubeProxyDir, "*.nft"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s has no rules: %v", kubeProxyDir, err)
	}
	var mu sync.Mutex
	seen := map[string]int{}
	t.Run("cases", func(t *testing.T) {
		for _, file := range files {
			name := strings.TrimSuffix(filepath.Base(file), ".nft")
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				found := compareKubeProxy(t, name, file)
				mu.Lock()
				defer mu.Unlock()
				for d, n := range found {
					seen[d] += n
				}
			})
		}
	})
	table, err := os.ReadFile("../../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range differences() {
		if !strings.Contains(string(table), "\n| "+d.what) {
			t.Errorf("docs/compatibility.md does not have the difference: %s", d.what)
		}
		if t.Logf("%d classes: %s", seen[d.what], d.what); seen[d.what] == 0 {
			t.Errorf("no class shows the difference: %s", d.what)
		}
	}
}

// compareKubeProxy counts the classes of a case in which kube-proxy differs, by the difference.
func compareKubeProxy(t *testing.T, name, file string) map[string]int {
	t.Helper()
	rules, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	ns := lab.TestNamespace(t)
	if _, err := ns.Nft(string(rules), "-f", "-"); err != nil {
		t.Fatal(err)
	}
	theirs := dump(t, ns)
	seen := map[string]int{}
	for _, c := range newProofCases(t, name) {
		j := newJudge(t, c.config, c.ruleset, c.cluster)
		kubeProxy := bytecode.Machine{Ruleset: theirs, Local: j.machine.Local}
		for _, family := range families() {
			c.classes(t, family, theirs).visit(limit(), func(p bytecode.Packet) {
				ours, _ := j.allowed(p)
				outcomes, err := kubeProxy.Outcomes(p, nil, nil)
				if err != nil {
					j.report(p, "%v", err)
					return
				}
				d := pair{packet: p, ours: ours, theirs: specOutcomes(outcomes)}
				if d.same() {
					return
				}
				d.facts = c.cluster.Facts(specPacket(p, j.bit))
				if what := d.difference(); what != "" {
					seen[what]++
					return
				}
				j.report(p, "nftproxy %+v, kube-proxy %+v", ours, d.theirs)
			})
		}
	}
	return seen
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
