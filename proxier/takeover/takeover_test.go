package takeover

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// newWatcher returns a watcher whose steps a test makes, and the Events that it reports.
func newWatcher(t *testing.T, ns *lab.Namespace, remove bool, mode *string) (w *watcher, reported *[]string) {
	t.Helper()
	reported = &[]string{}
	return &watcher{
		Options: Options{
			Remove:   remove,
			Report:   func(_, reason, note string) { *reported = append(*reported, reason+": "+note) },
			Standing: func(string) {},
		},
		conn: dial(t, ns), reported: map[string]string{},
		running: func(context.Context) (string, error) { return *mode, nil },
		outside: func() ([]Leftover, error) { return []Leftover{{"interface kube-ipvs0", "delete it"}}, nil },
	}, reported
}

// TestTakeOverWaits has a kube-proxy that runs, ends, and comes back.
func TestTakeOverWaits(t *testing.T) {
	ns := lab.TestNamespace(t)
	theirs := migrationFile(t, "nftables.nft")
	nftIn(t, ns, theirs, "-f", "-")
	mode := "nftables"
	w, reported := newWatcher(t, ns, true, &mode)
	step := func(wantPending, wantTheirs bool) {
		t.Helper()
		for range 2 { // the second step must not report anything again
			pending, err := w.step(t.Context())
			if err != nil || pending != wantPending {
				t.Errorf("pending %v, %v, want %v", pending, err, wantPending)
			}
		}
		got := strings.Contains(nftIn(t, ns, "", "list", "ruleset"), "table ip kube-proxy")
		if got != wantTheirs {
			t.Errorf("kube-proxy's table exists: %v, want %v", got, wantTheirs)
		}
	}
	step(true, true)
	mode = ""
	step(false, false)
	nftIn(t, ns, theirs, "-f", "-")
	step(false, true)
	want := []string{
		"KubeProxyRuns: kube-proxy runs on this node, in mode nftables: " +
			"whichever of kube-proxy and nftproxy created its chains last translates new connections; " +
			"nftproxy removes kube-proxy's rules when kube-proxy has ended",
		"TookOver: took over from kube-proxy: removed table ip kube-proxy, table ip6 kube-proxy",
		"KubeProxyRules: kube-proxy left interface kube-ipvs0, which nftproxy does not remove: delete it",
		"KubeProxyRuns: the rules that nftproxy removed are back, table ip kube-proxy, " +
			"table ip6 kube-proxy: a kube-proxy on this node writes them; remove it from this node",
	}
	if diff := cmp.Diff(want, *reported); diff != "" {
		t.Errorf("reported (-want +got):\n%s", diff)
	}
}

// TestNoTakeOver leaves kube-proxy's rules alone without --take-over, and reports them once.
func TestNoTakeOver(t *testing.T) {
	ns := lab.TestNamespace(t)
	nftIn(t, ns, migrationFile(t, "iptables.nft"), "-f", "-")
	mode := ""
	w, reported := newWatcher(t, ns, false, &mode)
	before := nftIn(t, ns, "", "-s", "list", "ruleset")
	for range 2 {
		if pending, err := w.step(t.Context()); pending || err != nil {
			t.Errorf("pending %v, %v", pending, err)
		}
	}
	if diff := cmp.Diff(before, nftIn(t, ns, "", "-s", "list", "ruleset")); diff != "" {
		t.Errorf("the ruleset changed (-want +got):\n%s", diff)
	}
	want := []string{
		"KubeProxyRules: kube-proxy left its rules, " + removed(6, 13) + ", and no process updates them: " +
			"if their chains are newer than nftproxy's, they translate new connections; " +
			"--take-over removes them",
		"KubeProxyRules: kube-proxy left interface kube-ipvs0, which nftproxy does not remove: delete it",
	}
	if diff := cmp.Diff(want, *reported); diff != "" {
		t.Errorf("reported (-want +got):\n%s", diff)
	}
}
