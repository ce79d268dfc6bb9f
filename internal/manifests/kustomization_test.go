package manifests

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"
)

// remote matches a resource in a kustomization of the documentation.
var remote = regexp.MustCompile(`github\.com/nftproxy/nftproxy//manifests/([\w/-]+)\?ref=VERSION`)

// documented returns the kustomizations in the code blocks of a page.
func documented(t *testing.T, page string) (found []string) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for i, block := range strings.Split(string(text), "\n```") {
		if i%2 == 1 && strings.Contains(block, "images:") {
			_, block, _ = strings.Cut(block, "\n")
			found = append(found, block)
		}
	}
	if len(found) == 0 {
		t.Fatalf("%s shows no kustomization with images", page)
	}
	return found
}

// TestDocumentedKustomizations renders the kustomizations that the documentation shows, with every overlay:
// each sets the image of all containers.
func TestDocumentedKustomizations(t *testing.T) {
	for _, page := range []string{"../../manifests/README.md", "../../docs/migration.md"} {
		for i, text := range documented(t, page) {
			for _, overlay := range append(overlays(t), "../cleanup") {
				name := fmt.Sprintf("%s/%d/%s", strings.TrimPrefix(page, "../../"), i, filepath.Base(overlay))
				t.Run(name, func(t *testing.T) {
					all := objects(t, kustomization(t, text, overlay))
					pod := of[*appsv1.DaemonSet](t, all).Spec.Template.Spec
					const want = "REGISTRY/nftproxy:VERSION"
					for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
						if c.Image != want {
							t.Errorf("container %s has the image %s, want %s", c.Name, c.Image, want)
						}
					}
				})
			}
		}
	}
}

// TestFlagPatch renders the patch of docs/configuration.md, which adds a flag.
func TestFlagPatch(t *testing.T) {
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, patch, found := strings.Cut(string(text), "```\npatches:")
	if !found {
		t.Fatal("docs/configuration.md shows no patch")
	}
	patch, _, _ = strings.Cut(patch, "```")
	const resource = "resources: [github.com/nftproxy/nftproxy//manifests/overlays/kubeadm?ref=VERSION]\n"
	all := objects(t, kustomization(t, resource+"patches:"+patch, "kubeadm"))
	args := of[*appsv1.DaemonSet](t, all).Spec.Template.Spec.Containers[0].Args
	const want = "--allowed-external-cidrs=192.0.2.0/24"
	if !slices.Contains(args, want) || !slices.Contains(args, "--take-over") {
		t.Errorf("args %q lack %s or those of the overlay", args, want)
	}
}

// kustomization writes a kustomization of the documentation, with an overlay from the working tree in place
// of its resource, and returns its directory.
func kustomization(t *testing.T, text, overlay string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	abs, err := filepath.Abs(filepath.Join(root, "overlays", overlay))
	if err != nil {
		t.Fatal(err)
	}
	resource, err := filepath.Rel(dir, abs)
	if err != nil {
		t.Fatal(err)
	}
	match := remote.FindStringSubmatch(text)
	if match == nil {
		t.Fatalf("no resource of nftproxy in %s", text)
	}
	if _, err := os.Stat(filepath.Join(root, match[1])); err != nil {
		t.Errorf("the documentation names a directory that does not exist: %v", err)
	}
	var parsed struct{ Resources []string }
	text = strings.Replace(text, match[0], resource, 1)
	if err := yaml.Unmarshal([]byte(text), &parsed); err != nil || len(parsed.Resources) != 1 {
		t.Fatalf("resources %v, error %v", parsed.Resources, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}
