package proxier

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/yaml"

	"github.com/nftproxy/nftproxy/internal/configtest"
	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/conntrack"
	"github.com/nftproxy/nftproxy/proxier/desired"
	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/proxier/source"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

func TestMain(m *testing.M) { lab.Main(m) }

// nftIn runs the nft command in a namespace. Tests compare with it; they fail without it.
func nftIn(t *testing.T, ns *lab.Namespace, stdin string, args ...string) string {
	t.Helper()
	out, err := ns.Nft(stdin, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func newLab(t testing.TB, o lab.Options) *lab.Lab {
	t.Helper()
	l, err := lab.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// ownNamespace returns the network namespace of this process, for tests that run alone.
func ownNamespace(t *testing.T) *lab.Namespace {
	t.Helper()
	ns, err := lab.NamespaceOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// dial opens a Conn in a namespace, where it stays while its socket is not opened anew.
func dial(t testing.TB, ns *lab.Namespace, o kernel.Options) (conn *kernel.Conn) {
	t.Helper()
	err := ns.Do(func() (err error) {
		conn, err = kernel.Dial(o)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// node is a Proxier whose syncs a test runs itself, in a namespace.
type node struct {
	*Proxier
	ns         *lab.Namespace
	conn       *kernel.Conn
	reconciler *reconciler
}

func newNode(t testing.TB, dir, manifests string, ns *lab.Namespace) *node {
	t.Helper()
	p, err := New(Options{Config: configtest.Case(t, dir, manifests)})
	if err != nil {
		t.Fatal(err)
	}
	if err := ns.Do(p.probe); err != nil {
		t.Fatal(err)
	}
	conn := dial(t, ns, kernel.Options{Counted: p.connections.last})
	read := p.connections.read
	p.connections.read = func(each func(kernel.Connections)) error {
		return ns.Do(func() error { return read(each) })
	}
	n := &node{p, ns, conn, p.newReconciler(conn)}
	n.reconciler.env = p.nodeEnvironment
	n.reconciler.deleteFlows = n.deleteFlows
	return n
}

// nodeEnvironment is environment with the addresses of the Node object as those of the host, as for
// --dry-run.
func (p *Proxier) nodeEnvironment() (desired.Environment, error) {
	return desired.NewEnvironment(p.config, p.name, p.state, p.families, p.state.Node().Addrs), nil
}

// deleteFlows is conntrack.Clean in the namespace.
func (n *node) deleteFlows(ctx context.Context, f service.Family, stale []service.StaleFlows) (
	deleted int, former []service.Frontend, err error) {
	err = n.ns.Do(func() (err error) {
		deleted, former, err = conntrack.Clean(ctx, f, stale)
		return err
	})
	return deleted, former, err
}

// load applies the objects of the manifests and returns the slices among them.
func (n *node) load(t testing.TB, manifests string) []*discoveryv1.EndpointSlice {
	t.Helper()
	objects, _, err := source.NewDir(manifests).Load()
	if err != nil {
		t.Fatal(err)
	}
	var slices []*discoveryv1.EndpointSlice
	for _, obj := range objects {
		n.Apply(obj)
		if s, ok := obj.(*discoveryv1.EndpointSlice); ok {
			slices = append(slices, s)
		}
	}
	return slices
}

func (n *node) sync(t testing.TB) {
	t.Helper()
	if err := n.trySync(t); err != nil {
		t.Fatal(err)
	}
}

func (n *node) trySync(t testing.TB) error {
	return n.ns.Do(func() error { return syncWhole(t, n.reconciler) })
}

// syncWhole syncs, and waits until stale flows are deleted.
func syncWhole(t testing.TB, r *reconciler) error {
	err := r.sync(t.Context())
	r.awaitSweep()
	return err
}

// diff returns what the kernel lacks of a new ruleset in an Environment.
func (r *reconciler) diff(e desired.Environment) (*rules.Delta, error) {
	return r.tables.Diff(e.Config.Families, func(slots rules.Slots) *rules.Ruleset {
		return r.builder.Rebuild(e, slots)
	})
}

// diff returns what a full sync would change.
func (n *node) diff(t *testing.T) (d *rules.Delta) {
	t.Helper()
	e, err := n.reconciler.env()
	if err == nil {
		d, err = n.reconciler.diff(e)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (n *node) generation(t *testing.T) uint32 {
	t.Helper()
	g, err := n.conn.Generation()
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// TestKernelCases programs each golden case by netlink on a node in a lab. A restart must write nothing, and
// traffic must go as traffic.yaml says.
func TestKernelCases(t *testing.T) {
	for _, name := range cases(t, casesDir) {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(casesDir, name)
			manifests := filepath.Join(dir, "input.yaml")
			l := newLab(t, labOptions(t, dir))
			n := newNode(t, dir, manifests, l.Node())
			endpoints := n.load(t, manifests)
			n.sync(t)
			restartWritesNothing(t, n, dir, manifests, l.Node())
			if err := l.ServeEndpoints(endpoints); err != nil {
				t.Fatal(err)
			}
			checkTraffic(t, l, filepath.Join(dir, "traffic.yaml"))
		})
	}
}

// TestListedCases programs each golden case by netlink. The bytecode must be that of the golden text, and nft
// must be able to list it and to load the listing.
func TestListedCases(t *testing.T) {
	for _, name := range cases(t, casesDir) {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(casesDir, name)
			manifests := filepath.Join(dir, "input.yaml")
			ns := lab.TestNamespace(t)
			n := newNode(t, dir, manifests, ns)
			n.load(t, manifests)
			n.sync(t)
			text, err := os.ReadFile(filepath.Join(dir, "ruleset.nft"))
			if err != nil {
				t.Fatal(err)
			}
			sameAsText(t, ns, string(text))
		})
	}
}

func labOptions(t *testing.T, dir string) (o lab.Options) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "lab.yaml"))
	if os.IsNotExist(err) {
		return o
	}
	if err == nil {
		err = yaml.UnmarshalStrict(data, &o)
	}
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// sameAsText compares the ruleset of ns with the one that nft makes from the text, and with the one that nft
// makes from its own listing.
func sameAsText(t *testing.T, ns *lab.Namespace, text string) {
	t.Helper()
	programmed := bytecode(t, ns)
	fresh := lab.TestNamespace(t)
	nftIn(t, fresh, text, "-f", "-")
	if diff := cmp.Diff(bytecode(t, fresh), programmed); diff != "" {
		t.Errorf("netlink differs from the text (-text +netlink):\n%s", diff)
	}
	listing := nftIn(t, ns, "", "list", "ruleset")
	nftIn(t, fresh, "flush ruleset\n"+listing, "-f", "-")
	if diff := cmp.Diff(bytecode(t, fresh), programmed); diff != "" {
		t.Errorf("the listing, reloaded, differs (-listing +netlink):\n%s", diff)
	}
}

var (
	ruleHeader  = regexp.MustCompile(`(?m)^(ip6? nftproxy \S+)( \d+)+$`)
	nullElement = regexp.MustCompile(`(?m)^\telement (00000000 ?)+ : 1 \[end\]\n`)
)

// bytecode returns the tables as nft sees them in the kernel, in a fixed order: with elements sorted, without
// handles, and without the end at address zero that nft puts into interval sets, which ends nothing.
func bytecode(t *testing.T, ns *lab.Namespace) string {
	t.Helper()
	text, err := tryBytecode(ns)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func tryBytecode(ns *lab.Namespace) (string, error) {
	var out strings.Builder
	for _, f := range service.Families() {
		text, err := ns.Nft("", "--debug=netlink", "list", "table", f.String(), nftables.TableName)
		if err != nil {
			return "", err
		}
		text, _, _ = strings.Cut(text, "\ntable ") // the listing itself follows
		text = nullElement.ReplaceAllString(text, "")
		text = ruleHeader.ReplaceAllString(text, "$1")
		out.WriteString(sortBlocks(text))
	}
	return out.String(), nil
}

// sortBlocks sorts elements within their sets, and sets and rules by their text; the rules of one chain keep
// their order.
func sortBlocks(text string) string {
	blocks := map[string]string{}
	var name string
	var elements []string
	flush := func() {
		slices.Sort(elements)
		blocks[name] += strings.Join(elements, "")
		elements = nil
	}
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "\telement "):
			elements = append(elements, line)
		case strings.HasPrefix(line, "ip"):
			flush()
			name = line
		default:
			blocks[name] += line
		}
	}
	flush()
	var out strings.Builder
	names := make([]string, 0, len(blocks))
	for n := range blocks {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		out.WriteString(n + blocks[n])
	}
	return out.String()
}

// restartWritesNothing starts another Proxier on the tables that the first one left.
func restartWritesNothing(t *testing.T, n *node, dir, manifests string, ns *lab.Namespace) {
	t.Helper()
	before := n.generation(t)
	again := newNode(t, dir, manifests, ns)
	again.load(t, manifests)
	again.sync(t)
	if after := n.generation(t); after != before {
		t.Errorf("a restart moved the generation from %d to %d", before, after)
	}
}

func checkTraffic(t *testing.T, l *lab.Lab, file string) {
	t.Helper()
	rows, err := lab.LoadTraffic(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		if _, err := l.Check(t.Context(), row); err != nil {
			t.Error(err)
		}
	}
}
