package source

import (
	"context"
	"slices"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// serves asks the API server whether it serves the resource of the informer, which is in
// networking.k8s.io/v1. It retries until the API server answers or ctx ends. If the resource is not served,
// the informer is synced.
func (a *API) serves(ctx context.Context, i *informer) bool {
	path := []string{"/apis", networkingv1.SchemeGroupVersion.String()}
	backoff := retryBackoff()
	for ctx.Err() == nil {
		list := &metav1.APIResourceList{}
		err := a.client.networking.Get().AbsPath(path...).MaxRetries(0).Do(ctx).Into(list)
		if err == nil || apierrors.IsNotFound(err) {
			i.result(ctx, "discover", nil)
			if err == nil && hasResource(list, i.name) {
				return true
			}
			i.setSynced()
			return false
		}
		i.result(ctx, "discover", err)
		select {
		case <-time.After(backoff.Step()):
		case <-ctx.Done():
		}
	}
	return false
}

func hasResource(list *metav1.APIResourceList, name string) bool {
	return slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == name })
}
