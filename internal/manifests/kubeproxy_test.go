package manifests

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/yaml"
)

// kubeProxy returns the fields of the DaemonSet of kube-proxy that the patches change, as kubeadm sets them.
func kubeProxy() appsv1.DaemonSet {
	ds := appsv1.DaemonSet{}
	ds.Spec.Template.Spec.NodeSelector = map[string]string{"kubernetes.io/os": "linux"}
	ds.Spec.Template.Spec.Containers = []corev1.Container{{Name: "kube-proxy", Image: "kube-proxy"}}
	return ds
}

// patched returns the pod template of kube-proxy after the patches with those names.
func patched(t *testing.T, names ...string) corev1.PodSpec {
	t.Helper()
	doc, err := json.Marshal(kubeProxy())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(root, "kube-proxy", name+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		patch, err := yaml.YAMLToJSONStrict(text)
		if err != nil {
			t.Fatal(err)
		}
		if doc, err = strategicpatch.StrategicMergePatch(doc, patch, appsv1.DaemonSet{}); err != nil {
			t.Fatal(err)
		}
	}
	var ds appsv1.DaemonSet
	if err := yaml.UnmarshalStrict(doc, &ds); err != nil {
		t.Fatal(err)
	}
	return ds.Spec.Template.Spec
}

func TestKubeProxyOff(t *testing.T) {
	want := kubeProxy().Spec.Template.Spec
	want.NodeSelector["nftproxy.dev/kube-proxy"] = "on"
	if diff := cmp.Diff(want, patched(t, "off")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestKubeProxyOnAgain(t *testing.T) {
	for _, names := range [][]string{{"on"}, {"off", "on"}, {"pilot", "on"}, {"pilot", "off", "on"}} {
		if diff := cmp.Diff(kubeProxy().Spec.Template.Spec, patched(t, names...)); diff != "" {
			t.Errorf("%v (-want +got):\n%s", names, diff)
		}
	}
}
