//go:build e2e

package manifests

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/nftproxy/nftproxy/internal/controlplane"
)

// TestServer checks with a real API server that it accepts every overlay, in a dry run that refuses unknown
// fields, and that the ServiceAccount gets the rights of the ClusterRole and no others.
func TestServer(t *testing.T) {
	binary, err := controlplane.Build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cluster, err := controlplane.Start(t.Context(), controlplane.Options{Binary: binary, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	admin, err := dynamic.NewForConfig(connection(t, cluster.AdminKubeconfig))
	if err != nil {
		t.Fatal(err)
	}
	dirs := []string{"cleanup"}
	for _, name := range overlays(t) {
		dirs = append(dirs, filepath.Join("overlays", name))
	}
	for _, dir := range dirs {
		t.Run(dir, func(t *testing.T) {
			for _, document := range render(t, filepath.Join(root, dir)) {
				apply(t, admin, document, metav1.DryRunAll)
			}
		})
	}
	t.Run("rights", func(t *testing.T) {
		proxy, err := kubernetes.NewForConfig(connection(t, cluster.ProxyKubeconfig))
		if err != nil {
			t.Fatal(err)
		}
		checkRights(t, admin, proxy)
	})
}

func connection(t *testing.T, kubeconfig string) *rest.Config {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// apply applies a document as kubectl apply --server-side does.
func apply(t *testing.T, c dynamic.Interface, document []byte, dryRun ...string) {
	t.Helper()
	var obj unstructured.Unstructured
	if err := yaml.Unmarshal(document, &obj.Object); err != nil {
		t.Fatal(err)
	}
	body, err := obj.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	resource, _ := meta.UnsafeGuessKindToResource(obj.GroupVersionKind())
	options := metav1.PatchOptions{
		FieldManager: "test", FieldValidation: metav1.FieldValidationStrict, DryRun: dryRun}
	client := c.Resource(resource).Namespace(obj.GetNamespace())
	if _, err := client.Patch(t.Context(), obj.GetName(), types.ApplyPatchType, body, options); err != nil {
		t.Errorf("apply %s %s: %v", obj.GetKind(), obj.GetName(), err)
	}
}

// checkRights applies the role and the binding, and checks the rights that the ServiceAccount gains.
func checkRights(t *testing.T, admin dynamic.Interface, proxy kubernetes.Interface) {
	t.Helper()
	before := granted(t, proxy)
	for _, document := range render(t, filepath.Join(root, "overlays/kubeadm")) {
		obj, err := decode(document)
		if err != nil {
			t.Fatal(err)
		}
		if obj.GetObjectKind().GroupVersionKind().Group == rbacv1.GroupName {
			apply(t, admin, document)
		}
	}
	role := of[*rbacv1.ClusterRole](t, objects(t, filepath.Join(root, "overlays/kubeadm")))
	var diff string
	deadline := time.Now().Add(30 * time.Second)
	for ; time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		got := slices.DeleteFunc(granted(t, proxy), func(r string) bool { return slices.Contains(before, r) })
		// The authorizer watches roles and may need some time to see them.
		if diff = cmp.Diff(rights(role.Rules), got); diff == "" {
			return
		}
	}
	t.Errorf("rights (-want +got):\n%s", diff)
}

// granted returns the rights of the user of the client in kube-system, in the form of rights.
func granted(t *testing.T, c kubernetes.Interface) []string {
	t.Helper()
	request := &authorizationv1.SelfSubjectRulesReview{
		Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: "kube-system"}}
	reviews := c.AuthorizationV1().SelfSubjectRulesReviews()
	review, err := reviews.Create(t.Context(), request, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var rules []rbacv1.PolicyRule
	for _, r := range review.Status.ResourceRules {
		rules = append(rules, rbacv1.PolicyRule{
			Verbs: r.Verbs, APIGroups: r.APIGroups, Resources: r.Resources, ResourceNames: r.ResourceNames})
	}
	return rights(rules)
}
