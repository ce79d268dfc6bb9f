package manifests

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// TestConntrackComponent checks every overlay with the component and an image, in a kustomization as users
// write it.
func TestConntrackComponent(t *testing.T) {
	for _, overlay := range overlays(t) {
		t.Run(overlay, func(t *testing.T) {
			without := objects(t, filepath.Join(root, "overlays", overlay))
			with := objects(t, kustomization(t, overlay))
			plain := of[*appsv1.DaemonSet](t, without).Spec.Template.Spec
			pod := of[*appsv1.DaemonSet](t, with).Spec.Template.Spec
			if len(pod.InitContainers) != 1 {
				t.Fatalf("%d init containers, want 1", len(pod.InitContainers))
			}
			init := pod.InitContainers[0]
			want := &corev1.SecurityContext{
				Privileged:             ptr.To(true),
				RunAsUser:              ptr.To[int64](0),
				ReadOnlyRootFilesystem: ptr.To(true),
			}
			if diff := cmp.Diff(want, init.SecurityContext); diff != "" {
				t.Errorf("securityContext (-want +got):\n%s", diff)
			}
			if !slices.Contains(init.Args, "--init-only") {
				t.Errorf("args %q, want --init-only", init.Args)
			}
			const image = "registry.example.com/nftproxy:v1"
			if init.Image != image {
				t.Errorf("the init container has the image %s, want %s", init.Image, image)
			}
			init.Image = "nftproxy:VERSION"
			checkArgs(t, &init)
			plain.Containers[0].Image, plain.InitContainers = image, pod.InitContainers
			if diff := cmp.Diff(plain, pod); diff != "" {
				t.Errorf("pod (-without +with the component):\n%s", diff)
			}
		})
	}
}

// kustomization writes a kustomization and returns its directory.
func kustomization(t *testing.T, overlay string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	abs, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	manifests, err := filepath.Rel(dir, abs)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("resources: [%[1]s/overlays/%[2]s]\ncomponents: [%[1]s/components/conntrack]\n"+
		"images: [{name: nftproxy, newName: registry.example.com/nftproxy, newTag: v1}]\n", manifests, overlay)
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}
