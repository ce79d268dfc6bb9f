package manifests

import (
	"context"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	discovery "k8s.io/client-go/discovery/fake"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/nftproxy/nftproxy/proxier/source"
)

// TestRoleIsWhatIsUsed compares the ClusterRole with what the source asks an API server for. That Events are created
// and patched is what client-go's broadcaster does.
func TestRoleIsWhatIsUsed(t *testing.T) {
	want := []string{"create events.k8s.io/events", "patch events.k8s.io/events"}
	want = append(want, actions(t)...)
	slices.Sort(want)
	got := rights(of[*rbacv1.ClusterRole](t, objects(t, filepath.Join(root, "overlays/generic"))).Rules)
	if diff := cmp.Diff(slices.Compact(want), got); diff != "" {
		t.Errorf("rights (-used +granted):\n%s", diff)
	}
}

// rights returns rules as sorted lines of verb, group and resource.
func rights(rules []rbacv1.PolicyRule) []string {
	var lines []string
	for _, r := range rules {
		for _, group := range r.APIGroups {
			for _, resource := range r.Resources {
				for _, verb := range r.Verbs {
					lines = append(lines, verb+" "+group+"/"+resource)
				}
			}
		}
	}
	slices.Sort(lines)
	return lines
}

// actions returns what the source does from its start until all is synced and watched.
func actions(t *testing.T) []string {
	t.Helper()
	client := fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}})
	client.Discovery().(*discovery.FakeDiscovery).Resources = []*metav1.APIResourceList{{
		GroupVersion: networkingv1.SchemeGroupVersion.String(), APIResources: []metav1.APIResource{{Name: "servicecidrs"}}}}
	// The fake has no watch that begins with a list. The API source lists then, as with an old API server.
	client.PrependWatchReactor("*", func(a clienttesting.Action) (bool, watch.Interface, error) {
		refuse := a.(clienttesting.WatchActionImpl).ListOptions.SendInitialEvents != nil
		return refuse, nil, apierrors.NewInvalid(schema.GroupKind{Kind: "ListOptions"}, "", nil)
	})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	synced := syncSink{make(chan struct{})}
	running.Go(func() {
		_ = source.NewAPI(client, "node").Run(ctx, synced, func(err error) { t.Error(err) }) // it has no errors
	})
	select {
	case <-synced.done:
	case <-time.After(time.Minute):
		t.Error("the source has not synced")
	}
	cancel()
	running.Wait()
	var lines []string
	for _, a := range client.Actions() {
		if r := a.GetResource(); r.Resource != "resource" { // which is how the fake notes discovery
			lines = append(lines, a.GetVerb()+" "+r.Group+"/"+r.Resource)
		}
	}
	return lines
}

// syncSink waits for all to be delivered.
type syncSink struct{ done chan struct{} }

func (syncSink) Apply(runtime.Object)  {}
func (syncSink) Delete(runtime.Object) {}
func (s syncSink) Synced()             { close(s.done) }
