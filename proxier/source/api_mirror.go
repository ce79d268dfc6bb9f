package source

import (
	"fmt"
	"hash/maphash"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// mirror is what a reflector writes to. It passes on what differs from what the sink has, of which it keeps
// no more than a hash of the version: with tens of thousands of objects, a copy of them all would be most of the
// proxy's memory.
type mirror struct {
	*kind
	seed     maphash.Seed
	versions map[types.NamespacedName]uint64 // of what the sink has
}

var _ cache.TransformingStore = (*mirror)(nil)

func newMirror(k *kind) *mirror {
	return &mirror{kind: k, seed: maphash.MakeSeed(), versions: map[types.NamespacedName]uint64{}}
}

// version tells the states of an object apart. The resource version alone does not: an API server whose storage was
// replaced gives them out again.
type version struct {
	uid             types.UID
	resourceVersion string
}

// Add applies an object.
func (m *mirror) Add(item any) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := m.apply(item)
	if err == nil && m.awaited {
		m.settle()
	}
	return err
}

// Update applies an object.
func (m *mirror) Update(item any) error { return m.Add(item) }

// Delete deletes an object.
func (m *mirror) Delete(item any) error {
	obj, ok := item.(object)
	if !ok {
		return fmt.Errorf("watch %s: got a %T", m.name, item)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drop(types.NamespacedName{Namespace: obj.GetNamespace(), Name: obj.GetName()})
	return nil
}

// Replace applies what is there and deletes what is not. New objects come before old ones go, so that an
// EndpointSlice that takes the place of another leaves no gap.
func (m *mirror) Replace(items []any, _ string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	there := make(map[types.NamespacedName]struct{}, len(items))
	for i, item := range items {
		name, err := m.apply(item)
		if err != nil {
			return err
		}
		there[name] = struct{}{}
		items[i] = nil // the list may be large, and nobody looks at it again
	}
	for name := range m.versions {
		if _, ok := there[name]; !ok {
			m.drop(name)
		}
	}
	if len(items) > 0 || !m.awaited {
		m.settle()
	}
	return nil
}

// Resync has nothing to do: what the sink has is right.
func (m *mirror) Resync() error { return nil }

// Transformer says what the reflector keeps of an object while it collects a list by a watch: next to nothing of one that
// the sink has. Before the first list is complete nobody acts on what the sink has, so that it gets all of it at once:
// tens of thousands of objects are never there together.
func (m *mirror) Transformer() cache.TransformFunc {
	return func(item any) (any, error) {
		obj, ok := item.(object)
		if !ok {
			return item, nil
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		name, hash := m.identify(obj)
		had, ok := m.versions[name]
		switch {
		case ok && had == hash:
		case m.done():
			reduce(obj)
			return obj, nil
		default:
			m.pass(name, hash, obj)
		}
		return known(name), nil
	}
}

// known stands in a list for an object that the sink has.
type known types.NamespacedName

// apply passes on an object unless the sink has it in this version.
func (m *mirror) apply(item any) (types.NamespacedName, error) {
	if name, ok := item.(known); ok {
		return types.NamespacedName(name), nil
	}
	obj, ok := item.(object)
	if !ok {
		return types.NamespacedName{}, fmt.Errorf("watch %s: got a %T", m.name, item)
	}
	name, hash := m.identify(obj)
	if had, ok := m.versions[name]; !ok || had != hash {
		m.pass(name, hash, obj)
	}
	return name, nil
}

func (m *mirror) identify(obj object) (types.NamespacedName, uint64) {
	return types.NamespacedName{Namespace: obj.GetNamespace(), Name: obj.GetName()},
		maphash.Comparable(m.seed, version{obj.GetUID(), obj.GetResourceVersion()})
}

func (m *mirror) pass(name types.NamespacedName, hash uint64, obj object) {
	reduce(obj)
	m.versions[name] = hash
	m.sink.Apply(obj)
}

// drop has the sink delete an object that it has.
func (m *mirror) drop(name types.NamespacedName) {
	if _, ok := m.versions[name]; !ok {
		return
	}
	delete(m.versions, name)
	obj := m.new()
	obj.SetNamespace(name.Namespace)
	obj.SetName(name.Name)
	m.sink.Delete(obj)
}

// reduce takes out of an object what is large and of no use to a proxy.
func reduce(obj object) {
	obj.SetManagedFields(nil)
	obj.SetOwnerReferences(nil)
	obj.SetFinalizers(nil)
	annotations := obj.GetAnnotations()
	trigger, triggered := annotations[corev1.EndpointsLastChangeTriggerTime]
	switch {
	case len(annotations) == 0, triggered && len(annotations) == 1:
	case triggered:
		obj.SetAnnotations(map[string]string{corev1.EndpointsLastChangeTriggerTime: trigger})
	default:
		obj.SetAnnotations(nil)
	}
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
