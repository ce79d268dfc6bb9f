package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/rules/service"
)

// exercised returns Metrics of which every series has been touched.
func exercised() *Metrics {
	m := New(service.Families())
	m.SyncQueued()
	m.SyncDone(true, time.Millisecond, nil)
	m.SyncDone(false, time.Millisecond, nil)
	m.CleanupFailed()
	m.NetworkProgrammed(service.IPv4, time.Second)
	m.NoLocalEndpoints(service.IPv4, 1, 2)
	m.HealthzServed(200)
	m.LivezServed(200)
	m.ConntrackReconciled(service.IPv4, time.Millisecond, 1)
	m.TransactionDone(1, 1, nil)
	m.NetlinkError(unix.EBUSY)
	m.SetFrontends(service.IPv4, map[string]int{"cluster-3": 1})
	client := m.RESTClient()
	at := url.URL{Host: "192.0.2.1:6443"}
	client.RequestResult.Increment(context.Background(), "200", "GET", at.Host)
	client.RequestLatency.Observe(context.Background(), "GET", at, time.Second)
	client.RateLimiterLatency.Observe(context.Background(), "GET", at, time.Second)
	return m
}

// TestNames compares every metric's name, type, labels and buckets with two lists kept
// by hand: what kube-proxy 1.36 has, read off its source, and what is nftproxy's own.
func TestNames(t *testing.T) {
	var got []string
	families, err := exercised().Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, f := range families {
		if prefix, _, _ := strings.Cut(f.GetName(), "_"); prefix == "go" || prefix == "process" {
			seen[prefix] = true
			continue
		}
		words := []string{f.GetName(), strings.ToLower(f.GetType().String())}
		series := f.GetMetric()[0]
		for _, label := range series.GetLabel() {
			words = append(words, label.GetName())
		}
		if buckets := series.GetHistogram().GetBucket(); len(buckets) > 0 {
			words = append(words, fmt.Sprintf("buckets %d:", len(buckets)))
			for _, b := range buckets {
				words = append(words, fmt.Sprint(b.GetUpperBound()))
			}
		}
		got = append(got, strings.Join(words, " "))
	}
	var want []string
	for _, file := range []string{"testdata/kube-proxy.txt", "testdata/nftproxy.txt"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, strings.Split(strings.TrimSpace(string(text)), "\n")...)
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
	if !seen["go"] || !seen["process"] {
		t.Errorf("collectors %v, want those of Go and of the process", seen)
	}
}

// lines are the lines of the /metrics page of the metrics whose name begins with one
// of prefixes, without buckets and comments.
func lines(t *testing.T, m *Metrics, prefixes ...string) []string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	page, err := io.ReadAll(w.Result().Body)
	if err != nil || w.Code != 200 {
		t.Fatalf("GET /metrics: status %d, %v", w.Code, err)
	}
	var out []string
	for line := range strings.Lines(string(page)) {
		if slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(line, p) }) && !strings.Contains(line, "_bucket{") {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}

// valueCase is what was noted, and the series that come of it.
type valueCase struct {
	name     string
	families []service.Family
	do       func(m *Metrics)
	prefixes []string // of the series that are compared
	want     []string
}

var errBusy = fmt.Errorf("apply table nftproxy: %w", unix.EBUSY)

func checkValues(t *testing.T, cases []valueCase) {
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := New(test.families)
				test.do(m)
				if diff := cmp.Diff(test.want, lines(t, m, test.prefixes...)); diff != "" {
					t.Errorf("series (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestSyncValues(t *testing.T) {
	checkValues(t, []valueCase{{
		name:     "failures are there before the first one",
		families: service.Families(),
		do:       func(*Metrics) {},
		prefixes: []string{"kubeproxy_sync_proxy_rules_nftables", "nftproxy_transactions"},
		want: []string{
			`kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total{ip_family="IPv4"} 0`,
			`kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total{ip_family="IPv6"} 0`,
			`kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family="IPv4"} 0`,
			`kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family="IPv6"} 0`,
			`nftproxy_transactions_total{result="error"} 0`,
			`nftproxy_transactions_total{result="success"} 0`,
		},
	}, {
		name:     "syncs",
		families: []service.Family{service.IPv6},
		do: func(m *Metrics) {
			m.SyncQueued()
			time.Sleep(2 * time.Second)
			m.SyncDone(true, 2*time.Second, nil)
			time.Sleep(time.Second)
			m.SyncDone(false, 500*time.Millisecond, errBusy)
		},
		prefixes: []string{"kubeproxy_sync_full", "kubeproxy_sync_partial", "kubeproxy_sync_proxy_rules_duration", "kubeproxy_sync_proxy_rules_last", "kubeproxy_sync_proxy_rules_nftables_sync"},
		want: []string{
			`kubeproxy_sync_full_proxy_rules_duration_seconds_sum{ip_family="IPv6"} 2`,
			`kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family="IPv6"} 1`,
			`kubeproxy_sync_partial_proxy_rules_duration_seconds_sum{ip_family="IPv6"} 0.5`,
			`kubeproxy_sync_partial_proxy_rules_duration_seconds_count{ip_family="IPv6"} 1`,
			`kubeproxy_sync_proxy_rules_duration_seconds_sum{ip_family="IPv6"} 2.5`,
			`kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family="IPv6"} 2`,
			`kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family="IPv6"} 9.466848e+08`,
			`kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv6"} 9.46684802e+08`,
			`kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family="IPv6"} 1`,
		},
	}})
}

func TestKubeProxyValues(t *testing.T) {
	checkValues(t, []valueCase{{
		name:     "of one family",
		families: service.Families(),
		do: func(m *Metrics) {
			m.NetworkProgrammed(service.IPv6, 250*time.Millisecond)
			m.NoLocalEndpoints(service.IPv4, 3, 4)
			m.ConntrackReconciled(service.IPv6, time.Second, 7)
		},
		prefixes: []string{"kubeproxy_network", "kubeproxy_sync_proxy_rules_no_local", "kubeproxy_conntrack"},
		want: []string{
			`kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family="IPv4"} 0`,
			`kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family="IPv6"} 7`,
			`kubeproxy_conntrack_reconciler_sync_duration_seconds_sum{ip_family="IPv6"} 1`,
			`kubeproxy_conntrack_reconciler_sync_duration_seconds_count{ip_family="IPv6"} 1`,
			`kubeproxy_network_programming_duration_seconds_sum{ip_family="IPv6"} 0.25`,
			`kubeproxy_network_programming_duration_seconds_count{ip_family="IPv6"} 1`,
			`kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family="IPv4",traffic_policy="external"} 4`,
			`kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family="IPv4",traffic_policy="internal"} 3`,
		},
	}, {
		name:     "probes",
		families: service.Families(),
		do: func(m *Metrics) {
			m.HealthzServed(200)
			m.HealthzServed(503)
			m.LivezServed(200)
		},
		prefixes: []string{"kubeproxy_proxy_"},
		want: []string{
			`kubeproxy_proxy_healthz_total{code="200"} 1`,
			`kubeproxy_proxy_healthz_total{code="503"} 1`,
			`kubeproxy_proxy_livez_total{code="200"} 1`,
		},
	}})
}

func TestOwnValues(t *testing.T) {
	checkValues(t, []valueCase{{
		name:     "transactions",
		families: service.Families(),
		do: func(m *Metrics) {
			m.TransactionDone(5, 2, nil)
			m.TransactionDone(100, 100, errBusy)
			m.TransactionDone(100, 100, errors.New("no answer"))
			m.NetlinkError(fmt.Errorf("dump: %w", unix.ENOBUFS))
		},
		prefixes: []string{"nftproxy_transactions", "nftproxy_elements", "nftproxy_netlink"},
		want: []string{
			`nftproxy_elements_total{operation="add"} 5`,
			`nftproxy_elements_total{operation="delete"} 2`,
			`nftproxy_netlink_errors_total{errno="EBUSY"} 1`,
			`nftproxy_netlink_errors_total{errno="ENOBUFS"} 1`,
			`nftproxy_netlink_errors_total{errno="unknown"} 1`,
			`nftproxy_transactions_total{result="error"} 2`,
			`nftproxy_transactions_total{result="success"} 1`,
		},
	}, {
		name:     "shapes come and go",
		families: service.Families(),
		do: func(m *Metrics) {
			m.SetFrontends(service.IPv4, map[string]int{"cluster-1": 1, "cluster-2": 2, "cluster-3": 3})
			m.SetFrontends(service.IPv6, map[string]int{"cluster-1": 1})
			m.SetFrontends(service.IPv4, map[string]int{"cluster-2": 5, "cluster-3": 0, "cluster-4": 4})
		},
		prefixes: []string{"nftproxy_frontends"},
		want: []string{
			`nftproxy_frontends{ip_family="IPv4",shape="cluster-2"} 5`,
			`nftproxy_frontends{ip_family="IPv4",shape="cluster-4"} 4`,
			`nftproxy_frontends{ip_family="IPv6",shape="cluster-1"} 1`,
		},
	}})
}

// TestNoGlobals: a process may have several Metrics, and none is in the default registry.
func TestNoGlobals(t *testing.T) {
	a, b := New(service.Families()), New(service.Families())
	a.Services.Set(1)
	if diff := cmp.Diff([]string{"nftproxy_services 0"}, lines(t, b, "nftproxy_services")); diff != "" {
		t.Errorf("series of another Metrics (-want +got):\n%s", diff)
	}
}
