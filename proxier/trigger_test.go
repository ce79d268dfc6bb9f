package proxier

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// TestTriggersFromBeforeTheStart scrapes a running daemon: slices that changed before its start say nothing
// about how long it takes to program a change. Nor does a slice that is written again without a new change. A
// change from the future took no time.
func TestTriggersFromBeforeTheStart(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	l := newLab(t, lab.Options{Here: true})
	dir := webManifests(t, podA)
	d := &daemon{dir: dir}
	slice := func(trigger time.Time, pods ...string) {
		t.Helper()
		annotation := fmt.Sprintf(`annotations: {endpoints.kubernetes.io/last-change-trigger-time: %q}, labels:`,
			trigger.UTC().Format(time.RFC3339Nano))
		d.write(t, "web-endpoints.yaml",
			strings.Replace(endpointsManifest("web", pods...), "labels:", annotation, 1))
	}
	slice(time.Now().Add(-72*time.Hour), podA)
	startDaemon(t, dir)
	eventually(t, l.Node(), true, "goto cluster-1")
	programmed(t, 0)
	slice(time.Now().Add(-71*time.Hour), podA, podC) // delivered late
	eventually(t, l.Node(), true, "goto cluster-2")
	programmed(t, 0)
	changed := time.Now()
	slice(changed, podA, podB, podC)
	eventually(t, l.Node(), true, "goto cluster-3")
	programmed(t, 1)
	slice(changed, podB, podC) // the same trigger
	eventually(t, l.Node(), true, "goto cluster-2")
	programmed(t, 1)
	slice(time.Now().Add(time.Hour), podA, podB, podC) // the clock of the control plane is ahead, or was
	eventually(t, l.Node(), true, "80 comment \"default/web\" : 4c00:3")
	programmed(t, 2)
	if err := os.Remove(filepath.Join(dir, "web-endpoints.yaml")); err != nil {
		t.Fatal(err)
	}
	eventually(t, l.Node(), true, "goto no-endpoints")
	programmed(t, 2)
}

// programmed scrapes the daemon until it has observed that many changes, none of which took 10 s.
func programmed(t *testing.T, want int) {
	t.Helper()
	const series = "kubeproxy_network_programming_duration_seconds_"
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * ms) {
		response, err := http.Get("http://127.0.0.1:10249/metrics")
		if err != nil {
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
			continue
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		values := map[string]float64{}
		for line := range strings.Lines(string(body)) {
			for _, name := range []string{"count", "sum"} {
				if text, ok := strings.CutPrefix(line, series+name+`{ip_family="IPv4"} `); ok {
					if values[name], err = strconv.ParseFloat(strings.TrimSpace(text), 64); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		if values["sum"] >= 10 || values["sum"] < 0 || values["count"] > float64(want) {
			t.Fatalf("observed %v changes, in sum %v s, want %d of 0 to 10 s", values["count"],
				values["sum"], want)
		}
		if values["count"] == float64(want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after 10 s: observed %v changes, want %d", values["count"], want)
		}
	}
}
