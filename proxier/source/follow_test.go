package source

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"
)

// running is a Run with the calls that it made and that the test has not checked.
type running struct {
	dir   string
	calls chan string
}

func (r *running) Apply(obj runtime.Object)  { r.calls <- "apply " + tag(obj) }
func (r *running) Delete(obj runtime.Object) { r.calls <- "delete " + obj.(object).GetName() }
func (r *running) Synced()                   { r.calls <- "synced" }

// run starts the source for path. It removes dir from the reports.
func run(t *testing.T, dir, path string) *running {
	t.Helper()
	r := &running{dir: dir, calls: make(chan string, 1000)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- NewDir(path).Run(ctx, r, func(err error) {
			r.calls <- "report " + strings.ReplaceAll(err.Error(), dir+"/", "")
		})
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Run does not return at the end of its context")
		}
	})
	return r
}

// expect waits for the next calls, which must be these.
func (r *running) expect(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	timeout := time.After(20 * time.Second)
	for len(got) < len(want) {
		select {
		case call := <-r.calls:
			got = append(got, call)
		case <-timeout:
			t.Fatalf("timeout (-want +got):\n%s", cmp.Diff(want, got))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
}

func TestRunChanges(t *testing.T) {
	dir := t.TempDir()
	put(t, dir+"/b.yaml", node("b1", "1")+node("b2", "1"))
	put(t, dir+"/a.yaml", node("a", "1"))
	r := run(t, dir, dir)
	r.expect(t, "apply a 1", "apply b1 1", "apply b2 1", "synced")

	must(t, os.WriteFile(dir+"/c.yaml", []byte(node("c", "1")), 0o644))
	r.expect(t, "apply c 1")

	file, err := os.OpenFile(dir+"/c.yaml", os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = file.WriteString(node("d", "1"))
	must(t, err)
	must(t, file.Close())
	r.expect(t, "apply d 1")

	put(t, dir+"/b.yaml", node("b2", "2")+node("b3", "1"))
	r.expect(t, "apply b2 2", "apply b3 1", "delete b1")

	must(t, os.Remove(dir+"/b.yaml"))
	r.expect(t, "delete b2", "delete b3")

	// One file keeps its objects under another name, the other is not a manifest any more.
	must(t, os.Rename(dir+"/a.yaml", dir+"/z.yaml"))
	must(t, os.Rename(dir+"/c.yaml", dir+"/c.yaml~"))
	r.expect(t, "delete c", "delete d")

	// An object that has not changed is not applied again.
	put(t, dir+"/z.yaml", "# the same\n"+node("a", "1")+node("end", "1"))
	r.expect(t, "apply end 1")
}

func TestRunHalfWritten(t *testing.T) {
	dir := t.TempDir()
	put(t, dir+"/x.yaml", node("a", "1")+node("b", "1")+node("c", "1"))
	r := run(t, dir, dir)
	r.expect(t, "apply a 1", "apply b 1", "apply c 1", "synced")

	put(t, dir+"/x.yaml", node("a", "2")+"---\napiVersion: v1\nkind: Node\nmetadata: {name: b, lab")
	r.expect(t, "apply a 2", "report x.yaml: document 2: yaml: line 8: did not find expected ',' or '}'")

	// The same problem is not reported again. An object in another file replaces one that was kept.
	put(t, dir+"/y.yaml", node("c", "2"))
	r.expect(t, "apply c 2")

	put(t, dir+"/x.yaml", node("a", "3")+strings.Replace(node("b", "1"), "'1'", "1", 1))
	r.expect(t, "apply a 3", "report x.yaml: document 2 (Node b): json: cannot unmarshal number into Go "+
		"struct field ObjectMeta.metadata.labels of type string")

	put(t, dir+"/x.yaml", node("a", "3"))
	r.expect(t, "delete b")

	// A problem that was solved is reported again when it comes back.
	put(t, dir+"/x.yaml", "---\na: [")
	r.expect(t, "report x.yaml: document 1: yaml: line 2: did not find expected node content")
	put(t, dir+"/x.yaml", node("a", "4"))
	r.expect(t, "apply a 4")
	put(t, dir+"/x.yaml", "---\na: [")
	r.expect(t, "report x.yaml: document 1: yaml: line 2: did not find expected node content")

	must(t, os.Remove(dir+"/x.yaml"))
	r.expect(t, "delete a")
}

func TestRunDuplicate(t *testing.T) {
	dir := t.TempDir()
	put(t, dir+"/a.yaml", node("a", "1"))
	put(t, dir+"/b.yaml", node("a", "2")+"---\napiVersion: v1\nkind: Pod\n")
	r := run(t, dir, dir)
	r.expect(t, "apply a 1",
		"report b.yaml: document 1 (Node a): ignored, it is already in a.yaml: document 1 (Node a)",
		"report ignored objects that are not Services, EndpointSlices, Nodes or ServiceCIDRs: [Pod:1]", "synced")
	must(t, os.Remove(dir+"/a.yaml"))
	r.expect(t, "apply a 2")
}

// mountConfigMap creates the layout of a mounted ConfigMap in dir, or replaces its contents, as the kubelet
// does.
func mountConfigMap(t *testing.T, dir, version string, files map[string]string) {
	t.Helper()
	before, _ := os.Readlink(dir + "/..data")
	must(t, os.Mkdir(dir+"/.."+version, 0o755))
	for name, text := range files {
		must(t, os.WriteFile(filepath.Join(dir, ".."+version, name), []byte(text), 0o644))
	}
	must(t, os.Symlink(".."+version, dir+"/..data_tmp"))
	must(t, os.Rename(dir+"/..data_tmp", dir+"/..data"))
	for name := range files {
		err := os.Symlink("..data/"+name, filepath.Join(dir, name))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			t.Fatal(err)
		}
	}
	if before != "" {
		must(t, os.RemoveAll(filepath.Join(dir, before)))
	}
}

func TestRunConfigMap(t *testing.T) {
	for _, path := range []string{"/", "/x.yaml"} {
		t.Run(path, func(t *testing.T) {
			dir := t.TempDir()
			mountConfigMap(t, dir, "1", map[string]string{"x.yaml": node("a", "1")})
			r := run(t, dir, dir+path)
			r.expect(t, "apply a 1", "synced")
			mountConfigMap(t, dir, "2", map[string]string{"x.yaml": node("a", "2")})
			r.expect(t, "apply a 2")
			mountConfigMap(t, dir, "3", map[string]string{"x.yaml": node("a", "3")})
			r.expect(t, "apply a 3")
		})
	}
}

func TestRunLinks(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"first", "second", "files"} {
		must(t, os.Mkdir(dir+"/"+name, 0o755))
	}
	put(t, dir+"/files/x", node("a", "1"))
	must(t, os.Symlink("../files/x", dir+"/first/x.yaml"))
	must(t, os.Symlink("first", dir+"/path"))
	r := run(t, dir, dir+"/path")
	r.expect(t, "apply a 1", "synced")

	put(t, dir+"/files/x", node("a", "2")) // the target of a link
	r.expect(t, "apply a 2")

	put(t, dir+"/first/y.yaml", node("b", "1")) // in the target of the path
	r.expect(t, "apply b 1")

	put(t, dir+"/second/z.yaml", node("b", "2"))
	must(t, os.Symlink("second", dir+"/new"))
	must(t, os.Rename(dir+"/new", dir+"/path"))
	r.expect(t, "apply b 2", "delete a")

	put(t, dir+"/second/z.yaml", node("b", "3"))
	r.expect(t, "apply b 3")
}

func TestRunPathComesBack(t *testing.T) {
	dir := t.TempDir()
	path := dir + "/manifests"
	for _, name := range []string{"/manifests", "/new"} {
		must(t, os.Mkdir(dir+name, 0o755))
	}
	put(t, path+"/x.yaml", node("a", "1")+node("b", "1"))
	put(t, dir+"/new/x.yaml", node("b", "2"))
	r := run(t, dir, path)
	r.expect(t, "apply a 1", "apply b 1", "synced")

	must(t, os.Rename(path, dir+"/old"))
	r.expect(t, "report read manifests: stat manifests: no such file or directory")
	must(t, os.Rename(dir+"/new", path))
	r.expect(t, "apply b 2", "delete a")
	put(t, path+"/x.yaml", node("b", "3"))
	r.expect(t, "apply b 3")

	must(t, os.RemoveAll(path))
	r.expect(t, "report read manifests: stat manifests: no such file or directory")
	put(t, dir+"/old/x.yaml", node("b", "4"))
	must(t, os.Rename(dir+"/old", path))
	r.expect(t, "apply b 4")
}

func TestRunFileComesBack(t *testing.T) {
	dir := t.TempDir()
	put(t, dir+"/x.yaml", node("a", "1"))
	r := run(t, dir, dir+"/x.yaml")
	r.expect(t, "apply a 1", "synced")
	put(t, dir+"/other.yaml", node("b", "1"))
	must(t, os.Remove(dir+"/x.yaml"))
	r.expect(t, "report read manifests: stat x.yaml: no such file or directory")
	put(t, dir+"/x.yaml", node("a", "2"))
	r.expect(t, "apply a 2")
	put(t, dir+"/x.yaml", "")
	r.expect(t, "delete a")
}

// Without the parent of the path there is nothing to watch: Run retries.
func TestRunParentComesBack(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(dir+"/parent/manifests", 0o755))
	put(t, dir+"/parent/manifests/x.yaml", node("a", "1"))
	r := run(t, dir, dir+"/parent/manifests")
	r.expect(t, "apply a 1", "synced")
	must(t, os.Rename(dir+"/parent", dir+"/away"))
	r.expect(t, "report read manifests: stat parent/manifests: no such file or directory")
	put(t, dir+"/away/manifests/x.yaml", node("a", "2"))
	must(t, os.Rename(dir+"/away", dir+"/parent"))
	r.expect(t, "apply a 2")
	put(t, dir+"/parent/manifests/x.yaml", node("a", "3"))
	r.expect(t, "apply a 3")
}

func TestRunBurst(t *testing.T) {
	dir := t.TempDir()
	r := run(t, dir, dir)
	r.expect(t, "synced")
	var want []string
	for i := range 100 {
		name := string(rune('a'+i/10)) + string(rune('a'+i%10))
		put(t, dir+"/"+name+".yaml", node(name, "1"))
		want = append(want, "apply "+name+" 1")
	}
	r.expect(t, want...)
}

func TestMatters(t *testing.T) {
	directories := map[string]bool{"/etc": false, "/etc/manifests": true}
	f := follower{Dir: NewDir("/etc/manifests"), directories: directories}
	for name, want := range map[string]bool{
		"/etc/manifests": true, "/etc/manifests/x.yaml": true, "/etc/manifests/..data": true, "/etc": true,
		"/etc/passwd": false, "/srv/x.yaml": false, "/etc/manifests/sub/x.yaml": false,
	} {
		if got := f.matters(name); got != want {
			t.Errorf("%s matters: %t, want %t", name, got, want)
		}
	}
}

func TestRunMissingPath(t *testing.T) {
	path := t.TempDir() + "/none"
	err := NewDir(path).Run(t.Context(), nil, nil)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("run: %v", err)
	}
}
