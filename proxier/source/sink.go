// Package source delivers the objects that the proxy programs to a Sink: Services, EndpointSlices, Nodes and
// ServiceCIDRs. There are two sources: API follows an API server, and Dir follows manifests in files.
//
// API is an informer: for each resource, client-go's reflector lists, watches, retries and reconnects. It is
// not client-go's shared informer, whose cache is a copy of every object: 2.9 kB for a Service with its
// EndpointSlice, 29 MB at 10,000 Services. Package state keeps what the proxy needs of an object in a smaller
// form, so API only keeps a hash of each object. It does not use client-go's Clientset either,
// which links all APIs of Kubernetes: with the Clientset and its informers the program has 35 MB instead of
// 21 MB (client-go 0.37).
//
// The contract is the same for both sources. They make one call to the Sink at a time: Apply for every object
// that exists at the start, then Synced, once. Apply and Delete for changes may come before Synced, too.
// Objects of different resources come in no particular order. A source does not apply an object twice with
// the same content, and deletes only objects that it applied. When it compares a whole list, after a
// reconnection or a change of a file, it applies new objects before it deletes old ones. It calls the
// function report for each error once, until the error is solved or changes. A source that has called Synced
// runs until its context ends.
//
// Start reading at API.Run in api.go, or at Dir.Run in follow.go.
package source

import "k8s.io/apimachinery/pkg/runtime"

// Sink receives the objects of a source.
//
// The objects are *corev1.Service, *discoveryv1.EndpointSlice, *corev1.Node and *networkingv1.ServiceCIDR.
// They belong to the source and are read-only. A source checks that an object has its type and a name. It
// does not validate the fields: they may contain anything that a user of the cluster can write.
type Sink interface {
	// Apply receives an object that is new or has changed.
	Apply(obj runtime.Object)
	// Delete receives an object that was deleted. Only its type, namespace and name are valid.
	Delete(obj runtime.Object)
	// Synced is called once, after all objects that exist at the start have been applied.
	Synced()
}
