package source

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// calls notes what a source does, as "+name@version" and "-name".
type calls []string

func (c *calls) Apply(obj runtime.Object) {
	s := obj.(*corev1.Service)
	*c = append(*c, "+"+s.Name+"@"+s.ResourceVersion)
}

func (c *calls) Delete(obj runtime.Object) { *c = append(*c, "-"+obj.(*corev1.Service).Name) }

func (c *calls) Synced() {}

// The first list reaches the sink as it comes in, and nothing is kept of it; a stream that breaks off leaves
// nothing behind that is gone. Of later lists, what is new comes with the whole.
func TestMirrorCollects(t *testing.T) {
	got := &calls{}
	k := newKind(&follow{sink: got}, resource{name: "services"}, selector{}, func() object { return &corev1.Service{} })
	m := newMirror(k)
	svc := func(name, version string) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, ResourceVersion: version}}
	}
	collect := func(objects ...*corev1.Service) (items []any) {
		for _, obj := range objects {
			item, err := m.Transformer()(obj)
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
		if _, ok := item.(known); !ok {
			t.Errorf("first list: a %T is kept", item)
		}
	}
	must(t, m.Replace(items, "4"))
	expect("first list", "-gone")
	items = collect(svc("a", "1"), svc("b", "5"))
	expect("later stream")
	must(t, m.Replace(items, "5"))
	expect("later list", "+b@5")
}
