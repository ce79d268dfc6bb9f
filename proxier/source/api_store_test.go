package source

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// calls records the calls of a source, as "+name@version" and "-name".
type calls []string

func (c *calls) Apply(obj runtime.Object) {
	svc := obj.(*corev1.Service)
	*c = append(*c, "+"+svc.Name+"@"+svc.ResourceVersion)
}

func (c *calls) Delete(obj runtime.Object) { *c = append(*c, "-"+obj.(*corev1.Service).Name) }

func (c *calls) Synced() {}

// The sink gets the objects of the first list at once, and the reflector keeps only their names. If the
// stream breaks off, the next list deletes what is gone. The sink gets the new objects of later lists at
// their end.
func TestStoreCollects(t *testing.T) {
	got := &calls{}
	newService := func() object { return &corev1.Service{} }
	s := newStore(newInformer(&apiRun{sink: got}, resource{name: "services"}, selector{}, newService))
	svc := func(name, version string) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, ResourceVersion: version}}
	}
	collect := func(objects ...*corev1.Service) (items []any) {
		for _, obj := range objects {
			item, err := s.Transformer()(obj)
			must(t, err)
			items = append(items, item)
		}
		return items
	}
	expect := func(step string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, []string(*got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step, diff)
		}
		*got = nil
	}

	collect(svc("a", "1"), svc("gone", "2"))
	expect("stream that breaks off", "+a@1", "+gone@2")
	items := collect(svc("a", "1"), svc("b", "3"), svc("b", "4"))
	expect("stream", "+b@3", "+b@4")
	for _, item := range items {
		if _, ok := item.(delivered); !ok {
			t.Errorf("first list: the reflector keeps a %T", item)
		}
	}
	must(t, s.Replace(items, "4"))
	expect("first list", "-gone")
	items = collect(svc("a", "1"), svc("b", "5"))
	expect("later stream")
	must(t, s.Replace(items, "5"))
	expect("later list", "+b@5")
}

// An object with the UID and the resource version of an earlier one, but not its content, is another one:
// after a restore of etcd, resource versions are assigned again.
func TestStoreComparesContent(t *testing.T) {
	got := &calls{}
	newService := func() object { return &corev1.Service{} }
	s := newStore(newInformer(&apiRun{sink: got}, resource{name: "services"}, selector{}, newService))
	svc := func(clusterIP string) *corev1.Service {
		return &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: "a", UID: "u", ResourceVersion: "1"},
			Spec:       corev1.ServiceSpec{ClusterIP: clusterIP},
		}
	}
	for _, obj := range []*corev1.Service{svc("10.96.0.1"), svc("10.96.0.1"), svc("10.96.0.2")} {
		must(t, s.Replace([]any{obj}, "1"))
	}
	if diff := cmp.Diff([]string{"+a@1", "+a@1"}, []string(*got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
