// Package source is where the objects come from that the proxy turns into rules: Services, EndpointSlices,
// Nodes and ServiceCIDRs. Dir reads them from manifests on disk and follows their changes.
package source

import "k8s.io/apimachinery/pkg/runtime"

// Sink receives what a source finds, one call at a time, never concurrently.
//
// The objects are *corev1.Service, *discoveryv1.EndpointSlice, *corev1.Node and *networkingv1.ServiceCIDR.
// They belong to the source and are read only. Their values are as hostile as whoever wrote them: a source checks
// that an object has its type and its name, not that it makes sense.
type Sink interface {
	// Apply tells of an object that is new or has changed.
	Apply(obj runtime.Object)
	// Delete tells that an object is gone; of obj, only type, namespace and name are sure to be set.
	Delete(obj runtime.Object)
	// Synced is called once, when everything that was there at the start has been applied.
	Synced()
}
