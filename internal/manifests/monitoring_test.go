package manifests

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// alerts has the fields of a Prometheus rule file that alerts.yaml uses.
type alerts struct {
	Groups []struct {
		Name  string
		Rules []struct {
			Alert, Expr, For    string
			Labels, Annotations map[string]string
		}
	}
}

// dashboard has the fields of a Grafana dashboard that contain expressions.
type dashboard struct {
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
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			checkExpr(t, r.Alert, r.Expr, metrics)
			if r.Labels["severity"] == "" {
				t.Errorf("%s lacks a severity", r.Alert)
			}
			if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%s lacks a summary or a description", r.Alert)
			}
		}
	}
	if len(file.Groups) == 0 || len(file.Groups[0].Rules) == 0 {
		t.Error("no alerts")
	}
}

func TestDashboard(t *testing.T) {
	var file dashboard
	if err := json.Unmarshal(read(t, "monitoring/dashboard.json"), &file); err != nil {
		t.Fatal(err)
	}
	metrics := series(t)
	for _, p := range file.Panels {
		if len(p.Targets) == 0 {
			t.Errorf("panel %s has no targets", p.Title)
		}
		for _, target := range p.Targets {
			checkExpr(t, p.Title, target.Expr, metrics)
		}
	}
	if len(file.Panels) == 0 {
		t.Error("no panels")
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

// series returns the labels of all series by name. The tests of proxier/metrics compare the same files with
// the metrics.
func series(t *testing.T) map[string][]string {
	t.Helper()
	names := map[string][]string{
		"up": nil, "process_resident_memory_bytes": nil, "process_cpu_seconds_total": nil,
	}
	files, err := filepath.Glob("../../proxier/metrics/testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("metrics files %v: %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for scanner := bufio.NewScanner(strings.NewReader(string(text))); scanner.Scan(); {
			words, _, _ := strings.Cut(scanner.Text(), " buckets")
			f := strings.Fields(words)
			name, kind, labels := f[0], f[1], f[2:]
			if kind == "histogram" {
				names[name+"_sum"], names[name+"_count"] = labels, labels
				names[name+"_bucket"] = append(slices.Clone(labels), "le")
				continue
			}
			names[name] = labels
		}
	}
	return names
}

var (
	metric   = regexp.MustCompile(`\b(?:up\b|(?:kubeproxy|nftproxy|rest_client|process)_\w+)`)
	grouping = regexp.MustCompile(`by \(([^)]*)\)`)
	matcher  = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)\s*"`)
)

// checkExpr checks that the series in an expression exist and have the labels in it.
func checkExpr(t *testing.T, where, expr string, series map[string][]string) {
	t.Helper()
	known := []string{"job", "instance"} // added by Prometheus
	found := metric.FindAllString(expr, -1)
	if len(found) == 0 {
		t.Errorf("%s: %q has no metric", where, expr)
	}
	for _, name := range found {
		labels, ok := series[name]
		if !ok {
			t.Errorf("%s: unknown series %s", where, name)
		}
		known = append(known, labels...)
	}
	var used []string
	for _, m := range grouping.FindAllStringSubmatch(expr, -1) {
		used = append(used, strings.Split(m[1], ", ")...)
	}
	for _, m := range matcher.FindAllStringSubmatch(expr, -1) {
		used = append(used, m[1])
	}
	for _, label := range used {
		if !slices.Contains(known, label) {
			t.Errorf("%s: no series of %q has the label %s", where, expr, label)
		}
	}
}
