//go:build e2e

package e2e

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// countsFailedRequests stops the API server and evaluates the alert about it: it fires afterwards, and not
// before.
func countsFailedRequests(t *testing.T, m *monitor, first page) {
	expr := alertExpr(t, "NftproxyAPIErrors")
	before := m.increases(t, func() { // the conflict makes an Event
		m.web(t, "conflict", corev1.ServiceSpec{ExternalIPs: []string{"198.51.100.7"}}, "pod-a")
	}, `rest_client_requests_total{code="201",method="POST"}`,
		`rest_client_request_duration_seconds_count{verb="POST"}`,
		`rest_client_rate_limiter_duration_seconds_count{verb="POST"}`)
	if fires(t, expr, first, before) {
		t.Error("the alert fires while the API server answers")
	}
	after := m.increases(t, m.plane.APIServer.Kill, `rest_client_requests_total{code="<error>",method="GET"}`)
	if !fires(t, expr, before, after) {
		t.Error("the alert does not fire without an API server")
	}
}

// alertExpr returns the expression of an alert of the manifests.
func alertExpr(t *testing.T, alert string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, "manifests", "monitoring", "alerts.yaml"))
	must(t, err)
	var file struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	must(t, yaml.Unmarshal(data, &file))
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			if r.Alert == alert {
				return r.Expr
			}
		}
	}
	t.Fatalf("there is no alert %s", alert)
	return ""
}

var rateRatio = regexp.MustCompile(`^sum by \(instance\) \(rate\((.+)\[\w+\]\)\)\s+/ ` +
	`sum by \(instance\) \(rate\((.+)\[\w+\]\)\) > ([\d.]+)\s*$`)

// fires evaluates an expression that compares the ratio of two rates with a limit. The two pages are the
// first and the last scrape in the range.
func fires(t *testing.T, expr string, from, to page) bool {
	t.Helper()
	parts := rateRatio.FindStringSubmatch(expr)
	if parts == nil {
		t.Fatalf("the expression is not a ratio of rates with a limit: %s", expr)
	}
	limit, err := strconv.ParseFloat(parts[3], 64)
	must(t, err)
	increase := func(selector string) float64 {
		return to.asScraped().sum(t, selector) - from.asScraped().sum(t, selector)
	}
	some, all := increase(parts[1]), increase(parts[2])
	if all <= 0 {
		t.Fatalf("%s does not increase", parts[2])
	}
	t.Logf("%v of %v requests failed", some, all)
	return some/all > limit
}

// asScraped returns the page with the labels that Prometheus adds.
func (p page) asScraped() page {
	out := page{types: p.types}
	for _, s := range p.series {
		s.labels = maps.Clone(s.labels)
		s.labels["job"], s.labels["instance"] = "nftproxy", lab.NodeName
		out.series = append(out.series, s)
	}
	return out
}
