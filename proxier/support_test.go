package proxier

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/proxier/source"
	"github.com/nftproxy/nftproxy/proxier/state"
	"github.com/nftproxy/nftproxy/rules/service"
)

// TestTableText programs each case and reads the tables back as text: they are what --dry-run prints, up to
// the order of elements.
func TestTableText(t *testing.T) {
	for name, dir := range allCases(t) {
		t.Run(name, func(t *testing.T) {
			manifests := filepath.Join(dir, "input.yaml")
			n := newNode(t, dir, manifests, lab.TestNamespace(t))
			n.load(t, manifests)
			n.sync(t)
			var want, got bytes.Buffer
			if err := n.reconciler.builder.Ruleset().WriteText(&want); err != nil {
				t.Fatal(err)
			}
			for _, f := range n.families {
				known := n.reconciler.builder.Ruleset().Chains(f)
				if err := dial(t, n.ns, kernel.Options{}).WriteTable(&got, f, known); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(sortedLines(want.String()), sortedLines(got.String())); diff != "" {
				t.Errorf("(-dry run +kernel):\n%s", diff)
			}
		})
	}
}

// TestObjects writes the objects of each case as a support bundle has them: they give the same rules.
func TestObjects(t *testing.T) {
	for name, dir := range allCases(t) {
		t.Run(name, func(t *testing.T) {
			objects, problems, err := source.NewDir(filepath.Join(dir, "input.yaml")).Load()
			if err != nil {
				t.Fatal(err, problems)
			}
			s := state.New("node-a")
			for _, obj := range objects {
				s.Apply(obj)
			}
			var text bytes.Buffer
			if err := writeObjects(&text, s); err != nil {
				t.Fatal(err)
			}
			copied := filepath.Join(t.TempDir(), "objects.json")
			if err := os.WriteFile(copied, text.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			want, _ := render(t, dir, filepath.Join(dir, "input.yaml"))
			got, _ := render(t, dir, copied)
			if diff := cmp.Diff(want.String(), got.String()); diff != "" {
				t.Errorf("the objects give other rules (-case +bundle):\n%s\n%s", diff, text.String())
			}
		})
	}
}

// sortedLines returns the lines without the commands that replace a table, and without separators.
func sortedLines(text string) (lines []string) {
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, ",\n")
		if !strings.HasPrefix(line, "add table ") && !strings.HasPrefix(line, "delete table ") {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return lines
}

// TestTableTextOfOthers reads a table that another program has changed, and one that is gone.
func TestTableTextOfOthers(t *testing.T) {
	n := webNode(t)
	nftIn(t, n.ns, `
		add rule ip nftproxy nat-prerouting udp dport 99 drop
		add chain ip nftproxy theirs
		add set ip nftproxy theirset { type ipv4_addr; }
		delete table ip6 nftproxy`, "-f", "-")
	var got bytes.Buffer
	for _, f := range service.Families() {
		if err := n.conn.WriteTable(&got, f, n.reconciler.builder.Ruleset().Chains(f)); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"\t\t# meta", "\tchain theirs {", "# theirset is not a set of nftproxy's",
		"# the kernel has no table ip6 nftproxy"} {
		if !strings.Contains(got.String(), want) {
			t.Errorf("no %q in:\n%s", want, got.String())
		}
	}
}

// webNode returns a node with a Service that is programmed.
func webNode(t *testing.T) *node {
	t.Helper()
	manifests := webManifests(t, podA)
	n := newNode(t, filepath.Join(casesDir, "clusterip-tcp"), manifests, lab.TestNamespace(t))
	n.load(t, filepath.Join(manifests, "node.yaml"))
	n.load(t, filepath.Join(manifests, "web.yaml"))
	n.load(t, filepath.Join(manifests, "web-endpoints.yaml"))
	n.sync(t)
	return n
}

// TestDifference asks for the difference of tables that are as wanted, and of tables that another program has
// changed: the question changes nothing, and the next sync repairs what it has found.
func TestDifference(t *testing.T) {
	n := webNode(t)
	difference := func() string {
		d, err := n.reconciler.difference()
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		if err := d.WriteText(&text); err != nil {
			t.Fatal(err)
		}
		return text.String()
	}
	if got := difference(); got != "" || n.reconciler.due != none {
		t.Errorf("nothing has changed: difference %q, a sync is due: %v", got, n.reconciler.due)
	}
	const gone = "element ip nftproxy endpoints { 10.96.0.10 . tcp . 80 . 0 : 10.244.1.11 . 8080 }"
	nftIn(t, n.ns, "delete "+gone, "-f", "-")
	before := nftIn(t, n.ns, "", "list", "ruleset")
	if got := difference(); got != "add "+gone+"\n" {
		t.Errorf("difference %q, want the element", got)
	}
	if after := nftIn(t, n.ns, "", "list", "ruleset"); after != before {
		t.Errorf("the question changed the tables (-before +after):\n%s", cmp.Diff(before, after))
	}
	if n.reconciler.due != suspicion {
		t.Errorf("a sync is due: %v, want %v", n.reconciler.due, suspicion)
	}
	n.sync(t)
	if got := difference(); got != "" {
		t.Errorf("after the repair: difference %q", got)
	}
}
