package proxier

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// TestDaemonScheduler annotates a Service of a running daemon, and counts who answers.
func TestDaemonScheduler(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	l := newLab(t, lab.Options{Here: true})
	serve(t, l, podA, podC, podA6, podC6)
	dir := &daemon{dir: t.TempDir()}
	dir.write(t, "node.yaml", nodeManifest)
	dir.write(t, "web.yaml", registryManifest)
	dir.write(t, "endpoints.yaml", registryEndpoints(podA, podC, podA6, podC6))
	d := startDaemon(t, dir.dir)
	eventuallyHealthy(t)
	answers := func(annotations, chain string) map[string]int {
		d.write(t, "web.yaml", strings.Replace(registryManifest, "namespace: default}",
			"namespace: default, annotations: {"+annotations+"}}", 1))
		eventually(t, l.Node(), true, chain)
		by := map[string]int{}
		for range 20 {
			by[l.Request("pod-b", "tcp", netip.MustParseAddrPort("10.96.0.10:80")).By]++
		}
		return by
	}
	both := func(by map[string]int) bool { return by["pod-a"] > 0 && by["pod-c"] > 0 && len(by) == 2 }
	if by := answers("nftproxy.io/scheduler: lc", "numgen random mod 2 map @endpoints"); !both(by) {
		t.Errorf("lc: answered by %v, want both, at random", by)
	}
	want := []string{"web: metadata.annotations[nftproxy.io/scheduler]: scheduler lc is not available: it " +
		"needs the number of open connections of each endpoint, which rules cannot compare; rr comes nearest; " +
		"connections choose at random"}
	if got := d.reportedProblems(t, 1); !slices.Equal(got, want) {
		t.Errorf("Events %q, want %q", got, want)
	}
	rr := answers("nftproxy.io/scheduler: rr", "goto rr-cluster-2-10.96.0.10-tcp-80")
	if fmt.Sprint(rr) != "map[pod-a:10 pod-c:10]" {
		t.Errorf("rr: answered by %v", rr)
	}
	weights := `nftproxy.io/scheduler: wrr, nftproxy.io/weights: "` + podA + `=4"`
	if by := answers(weights, "goto rr-cluster-5-10.96.0.10-tcp-80"); fmt.Sprint(by) != "map[pod-a:16 pod-c:4]" {
		t.Errorf("wrr: answered by %v", by)
	}
	if by := answers("nftproxy.io/scheduler: mh", "goto mh-cluster-251"); !both(by) {
		t.Errorf("mh: answered by %v, want both", by)
	}
	if by := answers("nftproxy.io/scheduler: sh", "goto sh-cluster-251"); len(by) != 1 {
		t.Errorf("sh: answered by %v, want one endpoint for the client", by)
	}
	drain := `nftproxy.io/weights: "` + podA + `=0"`
	if by := answers(drain, "numgen random mod 1 map @endpoints"); fmt.Sprint(by) != "map[pod-c:20]" {
		t.Errorf("weight 0: answered by %v", by)
	}
	plain := `10.96.0.10 . tcp . 80 comment "default/web:tcp" : 4c00:2`
	if by := answers("example.com/other: x", plain); !both(by) {
		t.Errorf("without annotations: answered by %v, want both, at random", by)
	}
}
