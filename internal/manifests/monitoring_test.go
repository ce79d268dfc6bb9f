package manifests

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// alerts is a rule file of Prometheus.
type alerts struct {
	Groups []struct {
		Name  string
		Rules []struct {
			Alert, Expr, For    string
			Labels, Annotations map[string]string
		}
	}
}

// dashboard has the fields of a dashboard of Grafana that name metrics.
type dashboard struct {
	Templating struct {
		List []struct {
			Name, Type string
			Query      any // an object for a variable of the type query
		}
	}
	Panels []struct {
		Title   string
		Targets []struct{ Expr string }
	}
}

func TestAlerts(t *testing.T) {
	var file alerts
	if err := yaml.UnmarshalStrict(read(t, "monitoring/alerts.yaml"), &file); err != nil {
		t.Fatal(err)
	}
	metrics := series(t)
	var rows []string
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			checkExpr(t, r.Alert, r.Expr, metrics)
			for _, name := range []string{"summary", "description"} {
				if r.Annotations[name] == "" {
					t.Errorf("%s has no %s", r.Alert, name)
				}
				for _, m := range metric.FindAllString(r.Annotations[name], -1) {
					if _, ok := metrics[m]; !ok && metrics[m+"_count"] == nil {
						t.Errorf("the %s of %s names %s, which does not exist", name, r.Alert, m)
					}
				}
			}
			rows = append(rows, "| `"+r.Alert+"` | "+r.Labels["severity"])
		}
	}
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	described := regexp.MustCompile("(?m)^\\| `Nftproxy\\w+` \\| \\w+").FindAllString(string(page), -1)
	if diff := cmp.Diff(rows, described); diff != "" || len(rows) == 0 {
		t.Errorf("alerts and severities (-alerts.yaml +docs/metrics.md):\n%s", diff)
	}
}

func TestDashboard(t *testing.T) {
	var file dashboard
	if err := json.Unmarshal(read(t, "monitoring/dashboard.json"), &file); err != nil {
		t.Fatal(err)
	}
	metrics := series(t)
	for _, v := range file.Templating.List {
		if query, ok := v.Query.(map[string]any); ok {
			checkExpr(t, "variable "+v.Name, query["query"].(string), metrics)
		}
	}
	for _, p := range file.Panels {
		if len(p.Targets) == 0 {
			t.Errorf("panel %s shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			checkExpr(t, p.Title, target.Expr, metrics)
		}
	}
	if len(file.Panels) == 0 {
		t.Error("there are no panels")
	}
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// series returns the names of all series with their labels, from the lists of metrics in proxier/metrics. The
// end-to-end test TestMetrics compares these lists with what nftproxy serves.
func series(t *testing.T) map[string][]string {
	t.Helper()
	added := []string{"job", "instance"} // by Prometheus
	names := map[string][]string{
		"up": added, "process_resident_memory_bytes": added, "process_cpu_seconds_total": added}
	for _, file := range []string{"kube-proxy.txt", "nftproxy.txt"} {
		text, err := os.ReadFile(filepath.Join("../../proxier/metrics/testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			words, _, _ := strings.Cut(line, " buckets")
			f := strings.Fields(words)
			name, kind, labels := f[0], f[1], slices.Concat(f[2:], added)
			if kind == "histogram" {
				names[name+"_sum"], names[name+"_count"] = labels, labels
				names[name+"_bucket"] = slices.Concat(labels, []string{"le"})
				continue
			}
			names[name] = labels
		}
	}
	return names
}

var (
	metric   = regexp.MustCompile(`\b(?:up\b|(?:kubeproxy|nftproxy|rest_client|process)_\w+)`)
	selector = regexp.MustCompile(metric.String() + `(?:\{[^}]*\})?`)
	matcher  = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)\s*"`)
	grouping = regexp.MustCompile(`by \(([^)]*)\)`)
	variable = regexp.MustCompile(`^label_values\(.*, (\w+)\)$`)
)

// checkExpr checks that each selector of an expression names a series that exists and labels that this series
// has, and that each series has the labels by which the expression groups.
func checkExpr(t *testing.T, where, expr string, series map[string][]string) {
	t.Helper()
	var by []string
	for _, m := range grouping.FindAllStringSubmatch(expr, -1) {
		by = append(by, strings.Split(m[1], ", ")...)
	}
	if m := variable.FindStringSubmatch(expr); m != nil {
		by = append(by, m[1])
	}
	selectors := selector.FindAllString(expr, -1)
	if len(selectors) == 0 {
		t.Errorf("%s: %q names no metric", where, expr)
	}
	for _, s := range selectors {
		name := metric.FindString(s)
		labels, ok := series[name]
		if !ok {
			t.Errorf("%s: there is no series %s", where, name)
		}
		used := slices.Clone(by)
		for _, m := range matcher.FindAllStringSubmatch(s, -1) {
			used = append(used, m[1])
		}
		for _, label := range used {
			if !slices.Contains(labels, label) {
				t.Errorf("%s: %s does not have the label %s", where, name, label)
			}
		}
	}
}
