package metrics

import (
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/component-base/featuregate"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
	"k8s.io/component-base/version"
)

// metric is a series of a gauge.
type metric struct {
	Type   string
	Labels map[string]string
	Value  float64
}

// gauges returns the series of a metric.
func gauges(t *testing.T, from prometheus.Gatherer, name string) []metric {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var found []metric
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			one := metric{f.GetType().String(), map[string]string{}, m.GetGauge().GetValue()}
			for _, l := range m.GetLabel() {
				one.Labels[l.GetName()] = l.GetValue()
			}
			found = append(found, one)
		}
	}
	return found
}

// TestFeatures compares kubernetes_feature_enabled with what component-base has for the same gates.
func TestFeatures(t *testing.T) {
	gate := featuregate.NewFeatureGate()
	if err := logsapi.AddFeatureGates(gate); err != nil {
		t.Fatal(err)
	}
	if err := gate.Add(map[featuregate.Feature]featuregate.FeatureSpec{
		"Stable": {Default: true, PreRelease: featuregate.GA},
		"Old":    {Default: false, PreRelease: featuregate.Deprecated},
	}); err != nil {
		t.Fatal(err)
	}
	if err := gate.Set("ContextualLogging=false,LoggingAlphaOptions=true"); err != nil {
		t.Fatal(err)
	}
	gate.AddMetrics()
	m := New()
	m.SetFeatures(gate)
	want := gauges(t, legacyregistry.DefaultGatherer, "kubernetes_feature_enabled")
	if len(want) < 5 {
		t.Fatalf("component-base has %d feature gates: %v", len(want), want)
	}
	if diff := cmp.Diff(want, gauges(t, m.Registry, "kubernetes_feature_enabled")); diff != "" {
		t.Errorf("(-component-base +nftproxy):\n%s", diff)
	}
}

// TestBuildInfo compares kubernetes_build_info with that of component-base, where the linker sets the version
// when Kubernetes is released.
func TestBuildInfo(t *testing.T) {
	theirs := metrics.NewKubeRegistry()
	metrics.RegisterBuildInfo(theirs)
	want := gauges(t, theirs, "kubernetes_build_info")
	if len(want) != 1 {
		t.Fatalf("component-base has %v", want)
	}
	major, minor, _ := strings.Cut(version.DefaultKubeBinaryVersion, ".")
	if !strings.HasPrefix(kubernetesRelease(), "v"+major+"."+minor+".") {
		t.Errorf("release %s, want one of v%s.%s", kubernetesRelease(), major, minor)
	}
	release := map[string]string{"major": major, "minor": minor, "git_version": kubernetesRelease(),
		"git_commit": "", "git_tree_state": "", "build_date": "", "go_version": runtime.Version()}
	for label, value := range release {
		if _, found := want[0].Labels[label]; !found {
			t.Errorf("component-base has no label %s", label)
		}
		want[0].Labels[label] = value
	}
	got := gauges(t, New().Registry, "kubernetes_build_info")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-component-base +nftproxy):\n%s", diff)
	}
}
