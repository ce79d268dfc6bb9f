package metrics

import (
	"runtime"
	"runtime/debug"
	"strings"

	"k8s.io/component-base/featuregate"
	"k8s.io/component-base/version"
)

const componentPrefix = "kubernetes_"

// buildInfo registers kubernetes_build_info. It describes the Kubernetes whose libraries are in the program,
// not nftproxy: monitoring compares git_version with that of the other components, and reports a mismatch.
// The labels that describe the working tree of a Kubernetes build are empty.
func buildInfo(r registerer) {
	release := kubernetesRelease()
	major, rest, _ := strings.Cut(strings.TrimPrefix(release, "v"), ".")
	minor, _, _ := strings.Cut(rest, ".")
	r.gaugeVec(componentPrefix+"build_info",
		"Always 1. The labels are the version of Kubernetes that nftproxy is built with, the Go version, "+
			"the compiler and the platform.",
		"major", "minor", "git_version", "git_commit", "git_tree_state", "build_date", "go_version",
		"compiler", "platform",
	).WithLabelValues(major, minor, release, "", "", "", runtime.Version(), runtime.Compiler,
		runtime.GOOS+"/"+runtime.GOARCH).Set(1)
}

// kubernetesRelease returns the release of the Kubernetes libraries in the program: release v1.37.2 has
// k8s.io/client-go v0.37.2. Where Go recorded no modules, it returns the first release of the minor version.
func kubernetesRelease() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if rest, v0 := strings.CutPrefix(module.Version, "v0."); v0 && module.Path == "k8s.io/client-go" {
				return "v1." + rest
			}
		}
	}
	return "v" + version.DefaultKubeBinaryVersion + ".0"
}

// features is a set of feature gates.
type features interface {
	GetAll() map[featuregate.Feature]featuregate.FeatureSpec
	Enabled(featuregate.Feature) bool
}

// SetFeatures sets kubernetes_feature_enabled to what is enabled.
func (m *Metrics) SetFeatures(gates features) {
	for name, spec := range gates.GetAll() {
		value := 0.0
		if gates.Enabled(name) {
			value = 1
		}
		m.features.WithLabelValues(string(name), string(spec.PreRelease)).Set(value)
	}
}
