package source

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// node returns a document with a Node. The label v distinguishes its versions.
func node(name, v string) string {
	return "---\napiVersion: v1\nkind: Node\nmetadata: {name: " + name + ", labels: {v: '" + v + "'}}\n"
}

// put replaces a file atomically, as many editors do.
func put(t *testing.T, file, text string) {
	t.Helper()
	temporary := filepath.Join(t.TempDir(), "new")
	must(t, os.WriteFile(temporary, []byte(text), 0o644))
	must(t, os.Rename(temporary, file))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tag prints an object as "name v".
func tag(obj runtime.Object) string {
	o := obj.(metav1.Object)
	return o.GetName() + " " + o.GetLabels()["v"]
}

// load returns the objects and problems of Load, without the directory in the problems.
func load(t *testing.T, dir, path string) (objects, problems []string) {
	t.Helper()
	found, errs, err := NewDir(path).Load()
	must(t, err)
	for _, obj := range found {
		objects = append(objects, tag(obj))
	}
	for _, text := range messages(errs) {
		problems = append(problems, strings.ReplaceAll(text, dir+"/", ""))
	}
	return objects, problems
}

func TestLoadDirectory(t *testing.T) {
	dir := t.TempDir()
	put(t, dir+"/b.yaml", node("b", "1")+node("shared", "2")+node("b", "2"))
	put(t, dir+"/a.yml", node("a", "1")+node("shared", "1"))
	put(t, dir+"/c.json", `{"apiVersion": "v1", "kind": "Node",
		"metadata": {"name": "c", "labels": {"v": "1"}}}`)
	put(t, dir+"/d.yaml", "apiVersion: v1\nkind: Pod\n---\na: [")
	put(t, dir+"/.hidden.yaml", node("hidden", "1"))
	put(t, dir+"/note.txt", node("note", "1"))
	put(t, dir+"/yaml", node("bare", "1"))
	must(t, os.Mkdir(dir+"/e.yaml", 0o755))
	put(t, dir+"/e.yaml/below.yaml", node("below", "1"))
	must(t, syscall.Mkfifo(dir+"/f.yaml", 0o644))
	must(t, os.Symlink("note.txt", dir+"/g.yaml"))
	must(t, os.Symlink("nowhere", dir+"/h.yaml"))
	for range 3 {
		objects, problems := load(t, dir, dir+"/.")
		if diff := cmp.Diff([]string{"a 1", "shared 1", "b 1", "c 1", "note 1"}, objects); diff != "" {
			t.Errorf("objects (-want +got):\n%s", diff)
		}
		want := []string{
			"b.yaml: document 2 (Node shared): ignored, it is already in a.yml: document 2 (Node shared)",
			"b.yaml: document 3 (Node b): ignored, it is already in b.yaml: document 1 (Node b)",
			"d.yaml: document 2: yaml: line 4: did not find expected node content",
			"read manifests: open h.yaml: no such file or directory",
			"ignored objects that are not Services, EndpointSlices, Nodes or ServiceCIDRs: [Pod:1]",
		}
		if diff := cmp.Diff(want, problems); diff != "" {
			t.Errorf("problems (-want +got):\n%s", diff)
		}
	}
}

func TestLoadIgnored(t *testing.T) {
	file := t.TempDir() + "/x"
	put(t, file, "apiVersion: v1\nkind: Pod\n")
	_, problems, err := NewDir(file).Load()
	must(t, err)
	var ignored Ignored
	if len(problems) != 1 || !errors.As(problems[0], &ignored) {
		t.Fatalf("problems %q", problems)
	}
	if diff := cmp.Diff(Ignored{"Pod": 1}, ignored); diff != "" {
		t.Errorf("ignored (-want +got):\n%s", diff)
	}
}

func TestLoadFile(t *testing.T) {
	dir := t.TempDir()
	put(t, dir+"/any.name", node("a", "1"))
	put(t, dir+"/other.yaml", node("b", "1"))
	objects, problems := load(t, dir, dir+"/any.name")
	if diff := cmp.Diff([]string{"a 1"}, objects); diff != "" || problems != nil {
		t.Errorf("problems %q, objects (-want +got):\n%s", problems, diff)
	}
}

func TestLoadSameNameOfTwoKinds(t *testing.T) {
	file := t.TempDir() + "/x.yaml"
	put(t, file, node("a", "1")+"---\napiVersion: v1\nkind: ServiceList\n"+
		"items: [{metadata: {name: a}}, {metadata: {name: a, namespace: x}}]\n")
	objects, problems, err := NewDir(file).Load()
	must(t, err)
	if len(objects) != 3 || len(problems) > 0 {
		t.Errorf("%d objects, problems %q", len(objects), problems)
	}
	if _, ok := objects[1].(*corev1.Service); !ok {
		t.Errorf("second object is a %T", objects[1])
	}
}

func TestLoadMissingPath(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Symlink("nowhere", dir+"/link"))
	for _, path := range []string{dir + "/none", dir + "/none/x.yaml", dir + "/link"} {
		_, _, err := NewDir(path).Load()
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
			t.Errorf("load of %s: %v", path, err)
		}
	}
}
