package proxier

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/socket"
	"github.com/nftproxy/nftproxy/proxier/status"
)

// statusOf returns the report of the daemon for a query of /status.json.
func statusOf(t *testing.T, query string) *status.Report {
	t.Helper()
	resp, err := http.Get(metricsURL + "/status.json?" + query)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	report := &status.Report{}
	if err := json.NewDecoder(resp.Body).Decode(report); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("/status.json: status %d, error %v", resp.StatusCode, err)
	}
	return report
}

// statusBySocket returns the report that the daemon has for commands, also while another process has the
// address of its pages.
func statusBySocket(t *testing.T) *status.Report {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://nftproxy/status.json", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := socket.Do(socket.Name, request)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	report := &status.Report{}
	if err := json.NewDecoder(resp.Body).Decode(report); err != nil {
		t.Fatal(err)
	}
	return report
}

// awaitStatus asks until the report is as it should be.
func awaitStatus(t *testing.T, query string, good func(*status.Report) bool) *status.Report {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for {
		report := statusOf(t, query)
		if good(report) {
			return report
		}
		if time.Now().After(deadline) {
			text, _ := json.MarshalIndent(report, "", " ")
			t.Fatalf("after 15 s: %s", text)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestStatusRows makes connections to a Service with two endpoints, of which one is left out: the row has
// them, their frontends, endpoints and shares.
func TestStatusRows(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	l := newLab(t, lab.Options{Here: true})
	serve(t, l, podA, podB)
	d := startDaemon(t, webManifests(t, podA, podB))
	eventually(t, l.Node(), true, "goto cluster-2")
	awaitStatus(t, "", func(r *status.Report) bool { return len(r.Rows) == 1 })
	checkRows(t, l, lab.Row{From: "pod-b", To: target(t, "tcp 10.96.0.10:80"), Requests: 10,
		By: []string{"pod-a", "pod-b"}})
	report := awaitStatus(t, "q="+url.QueryEscape("WEB 10.96.0.10:80"), func(r *status.Report) bool {
		return len(r.Rows) == 1 && r.Rows[0].Connections != nil && *r.Rows[0].Connections == 10
	})
	if len(report.Problems) > 0 || report.Busy != "" || report.Matched != 1 || report.Total != 1 {
		t.Errorf("problems %v, busy %q, %d of %d match", report.Problems, report.Busy, report.Matched, report.Total)
	}
	want := status.Row{
		Namespace: "default", Service: "web", Port: 80, Protocol: "tcp", Target: "default/web:80/tcp",
		Frontends: []status.Frontend{
			{Address: "10.96.0.10:80", Kind: "ClusterIP"}, {Address: "192.0.2.1:30080", Kind: "nodePort"}},
		Policies: []string{}, Ready: 2, Serving: 2, All: 2,
		Endpoints: []status.Endpoint{
			{Address: podA, Port: 8080, Node: "node-a", Ready: true, Serving: true},
			{Address: podB, Port: 8080, Node: "node-a", Ready: true, Serving: true}},
	}
	numbers := cmp.Options{cmpopts.IgnoreFields(status.Row{}, "Connections", "Rate", "History", "Open"),
		cmpopts.IgnoreFields(status.Endpoint{}, "Connections", "Share", "Open")}
	if diff := cmp.Diff(want, report.Rows[0], numbers); diff != "" {
		t.Errorf("row (-want +got):\n%s", diff)
	}
	var connections uint64
	var share float64
	for _, e := range report.Rows[0].Endpoints {
		connections, share = connections+*e.Connections, share+*e.Share
	}
	if connections != 10 || share < 0.999 || share > 1.001 {
		t.Errorf("the endpoints got %d connections, in shares of together %v", connections, share)
	}
	s := report.Summary
	if s.Node != "node-a" || s.Version != "v0.0.0-test" || s.Kernel == "" || s.Generation == 0 ||
		s.Services != 1 || s.Frontends != 2 || s.LastSync.IsZero() || s.Syncs.Samples == 0 ||
		s.Syncs.P50 <= 0 || s.Counted != "endpoints" {
		t.Errorf("summary %+v", s)
	}
	if r := statusOf(t, "q=other"); r.Matched != 0 || len(r.Rows) != 0 || r.Total != 1 {
		t.Errorf("another filter matches %d of %d", r.Matched, r.Total)
	}
	d.write(t, "web-endpoints.yaml", endpointsManifest("web", podA))
	awaitStatus(t, "", func(r *status.Report) bool { return len(r.Rows) == 1 && r.Rows[0].All == 1 })
}

// TestStatusFlood has many clients that ask for pages all the time: all are answered, a page of metrics is, and
// changes are programmed.
func TestStatusFlood(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	l := newLab(t, lab.Options{Here: true})
	d := startDaemon(t, webManifests(t, podA))
	eventually(t, l.Node(), true, "goto cluster-1")
	awaitPage(t, metricsURL+"/status", time.Now().Add(10*time.Second))
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	var answers atomic.Int32
	for range 64 {
		clients.Go(func() {
			for ctx.Err() == nil {
				resp, err := http.Get(metricsURL + "/status?q=web&order=rate")
				if err != nil || resp.StatusCode != http.StatusOK {
					t.Errorf("a page among many: %v, %v", resp, err)
					return
				}
				resp.Body.Close()
				answers.Add(1)
			}
		})
	}
	for i := range 5 {
		before := answers.Load()
		d.write(t, "web-endpoints.yaml", endpointsManifest("web", []string{podA, podB, podC}[:2-i%2]...))
		eventually(t, l.Node(), true, fmt.Sprintf("goto cluster-%d", 2-i%2))
		comparePages(t, map[string]webPage{"/healthz": {200, plainText, "ok"}})
		for answers.Load() < before+64 {
			time.Sleep(time.Millisecond)
		}
	}
	cancel()
	clients.Wait()
}
