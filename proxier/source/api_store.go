package source

import (
	"fmt"
	"hash/maphash"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"

	"github.com/nftproxy/nftproxy/rules/service"
)

// store is the store of an informer's reflector. It passes to the sink what differs from the objects that the
// sink has. Of these it keeps only a hash: with tens of thousands of objects, copies of them would be most of
// the memory of the proxy.
type store struct {
	*informer
	seed   maphash.Seed
	hashes map[cache.ObjectName]uint64 // of the objects that the sink has
	buffer []byte                      // of an object that is hashed
}

var _ cache.TransformingStore = (*store)(nil)

func newStore(i *informer) *store {
	return &store{informer: i, seed: maphash.MakeSeed(), hashes: map[cache.ObjectName]uint64{}}
}

// Add applies an object.
func (s *store) Add(item any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.apply(item)
	if err == nil && s.awaitObject {
		s.setSynced()
	}
	return err
}

// Update applies an object.
func (s *store) Update(item any) error { return s.Add(item) }

// Delete deletes an object.
func (s *store) Delete(item any) error {
	obj, ok := item.(object)
	if !ok {
		return fmt.Errorf("watch %s: unexpected type %T", s.name, item)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(cache.MetaObjectToName(obj))
	return nil
}

// Replace applies the objects of a list and deletes all others. It deletes last, so that there is no gap when
// an EndpointSlice replaces another.
func (s *store) Replace(items []any, _ string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	listed := make(map[cache.ObjectName]struct{}, len(items))
	for i, item := range items {
		name, err := s.apply(item)
		if err != nil {
			return err
		}
		listed[name] = struct{}{}
		items[i] = nil // the list may be large, and the reflector does not read it again
	}
	for name := range s.hashes {
		if _, ok := listed[name]; !ok {
			s.remove(name)
		}
	}
	if len(items) > 0 || !s.awaitObject {
		s.setSynced()
	}
	return nil
}

// Resync does nothing, because the sink has all objects.
func (s *store) Resync() error { return nil }

// Transformer returns what is called for each object while a list is received, from a watch or as one. It
// replaces an object that the sink has by its name. Before the first list is complete, it passes every object
// to the sink at once, which does not act on them before Synced: tens of thousands of objects are never in
// memory together.
func (s *store) Transformer() cache.TransformFunc {
	return func(item any) (any, error) {
		obj, ok := item.(object)
		if !ok {
			return item, nil
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		name, hash := s.identify(obj)
		had, ok := s.hashes[name]
		switch {
		case ok && had == hash:
		case s.hasSynced():
			return obj, nil
		default:
			s.deliver(name, hash, obj)
		}
		return delivered(name), nil
	}
}

// delivered stands in a list for an object that the sink has.
type delivered cache.ObjectName

// GetObjectKind and DeepCopyObject let it stand in a list of the API.
func (d delivered) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }
func (d delivered) DeepCopyObject() runtime.Object   { return d }

// apply passes an object to the sink, unless the sink has it like this.
func (s *store) apply(item any) (cache.ObjectName, error) {
	if name, ok := item.(delivered); ok {
		return cache.ObjectName(name), nil
	}
	obj, ok := item.(object)
	if !ok {
		return cache.ObjectName{}, fmt.Errorf("watch %s: unexpected type %T", s.name, item)
	}
	name, hash := s.identify(obj)
	if had, ok := s.hashes[name]; !ok || had != hash {
		s.deliver(name, hash, obj)
	}
	return name, nil
}

// identify reduces an object and returns its name and a hash of its content. UID and resource version alone
// do not identify it: an API server whose storage was restored from a snapshot assigns the same resource
// versions again, to other changes of the same objects.
func (s *store) identify(obj object) (cache.ObjectName, uint64) {
	reduce(obj)
	size := obj.Size()
	s.buffer = slices.Grow(s.buffer[:0], size)[:size]
	_, _ = obj.MarshalToSizedBuffer(s.buffer) // it fails only if the buffer is too small
	return cache.MetaObjectToName(obj), maphash.Bytes(s.seed, s.buffer)
}

func (s *store) deliver(name cache.ObjectName, hash uint64, obj object) {
	s.hashes[name] = hash
	s.sink.Apply(obj)
}

// remove deletes an object from the sink, if the sink has it.
func (s *store) remove(name cache.ObjectName) {
	if _, ok := s.hashes[name]; !ok {
		return
	}
	delete(s.hashes, name)
	obj := s.new()
	obj.SetNamespace(name.Namespace)
	obj.SetName(name.Name)
	s.sink.Delete(obj)
}

// reduce removes from an object the large fields that the proxy does not read.
func reduce(obj object) {
	obj.SetManagedFields(nil)
	obj.SetOwnerReferences(nil)
	obj.SetFinalizers(nil)
	reduceAnnotations(obj)
	switch obj := obj.(type) {
	case *corev1.Service:
		obj.Spec.Selector = nil
		obj.Status.Conditions = nil
	case *discoveryv1.EndpointSlice:
		for i := range obj.Endpoints {
			obj.Endpoints[i].TargetRef = nil
			obj.Endpoints[i].Hostname = nil
			obj.Endpoints[i].DeprecatedTopology = nil
		}
	case *corev1.Node:
		obj.Status = corev1.NodeStatus{Addresses: obj.Status.Addresses}
	}
}

// reduceAnnotations removes the annotations that the proxy does not read.
func reduceAnnotations(obj object) {
	var kept map[string]string
	annotations := obj.GetAnnotations()
	for name, value := range annotations {
		if name != corev1.EndpointsLastChangeTriggerTime && !strings.HasPrefix(name, service.AnnotationPrefix) {
			continue
		}
		if kept == nil {
			kept = make(map[string]string, 1)
		}
		kept[name] = value
	}
	if len(kept) < len(annotations) {
		obj.SetAnnotations(kept)
	}
}
