package proxier

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// reportedProblems returns the notes of the Events NotProgrammed, sorted, when there are n of them.
func (d *daemon) reportedProblems(t *testing.T, n int) []string {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		var notes []string
		for _, ev := range queued(d.events) {
			if ev.Reason == "NotProgrammed" {
				notes = append(notes, ev.Regarding.Name+": "+ev.Note)
			}
		}
		if len(notes) >= n || time.Now().After(deadline) {
			slices.Sort(notes)
			return notes
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestDaemonRestrictsExternalIPs shows with packets that external IPs outside of the allowed ranges are not
// served, and that those for ClusterIPs stop when the ServiceCIDR is known.
func TestDaemonRestrictsExternalIPs(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	l := newLab(t, lab.Options{Here: true})
	serve(t, l, podA)
	dir := webManifests(t, podA)
	d := &daemon{dir: dir}
	d.write(t, "web.yaml", strings.Replace(webManifest, "  clusterIP:",
		"  externalIPs: [198.51.100.10, 198.51.100.200, 10.96.0.99]\n  clusterIP:", 1))
	d = startDaemon(t, dir, "--allowed-external-cidrs=198.51.100.0/25,10.96.0.0/16")
	eventually(t, l.Node(), true, "198.51.100.10 . tcp . 80")
	checkRows(t, l,
		lab.Row{From: "client", To: target(t, "tcp 198.51.100.10:80"), By: []string{"pod-a"}},
		lab.Row{From: "client", To: target(t, "tcp 198.51.100.200:80"), Dropped: true},
		lab.Row{From: "pod-b", To: target(t, "tcp 10.96.0.99:80"), By: []string{"pod-a"}})

	d.write(t, "cidr.yaml", serviceCIDRManifest)
	eventually(t, l.Node(), false, "10.96.0.99 . tcp . 80")
	checkRows(t, l,
		lab.Row{From: "client", To: target(t, "tcp 198.51.100.10:80"), By: []string{"pod-a"}},
		lab.Row{From: "pod-b", To: target(t, "tcp 10.96.0.99:80"), Dropped: true})
	want := []string{
		"web: spec.externalIPs: 10.96.0.99 is an address for ClusterIPs, in the ServiceCIDR 10.96.0.0/16",
		"web: spec.externalIPs: 198.51.100.200 is outside of --allowed-external-cidrs",
	}
	if got := d.reportedProblems(t, 2); !slices.Equal(got, want) {
		t.Errorf("Events NotProgrammed:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
