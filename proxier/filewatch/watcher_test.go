package filewatch

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// await waits for an event about a path.
func await(t *testing.T, w *Watcher, path, what string) {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		select {
		case got := <-w.Events:
			if got == path {
				return
			}
		case <-timeout:
			t.Fatalf("%s: no event about %s", what, path)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newPolling returns a Watcher without inotify.
func newPolling(polling func(Polling)) *Watcher { return newWatcher(nil, unix.EMFILE, polling) }

// TestChanges changes files in every way, with inotify and without.
func TestChanges(t *testing.T) {
	for name, start := range map[string]func(func(Polling)) *Watcher{
		"inotify": New,
		"polling": newPolling,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, other := t.TempDir(), t.TempDir()
			file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
			must(t, os.WriteFile(file, []byte("1"), 0o644))
			must(t, os.Symlink("file", link))
			var polled []string
			w := start(func(p Polling) { polled = append(polled, p.Dir) })
			defer w.Close()
			must(t, w.Add(dir))
			must(t, w.Add(other))
			if want := name == "polling"; want != (len(polled) == 1) {
				t.Errorf("polling was reported for %v", polled)
			}
			must(t, os.WriteFile(file, []byte("2"), 0o644)) // the same size
			await(t, w, file, "written in place")
			must(t, os.WriteFile(file+".new", []byte("3"), 0o644))
			must(t, os.Rename(file+".new", file))
			await(t, w, file, "replaced")
			must(t, os.Symlink("other", link+".new"))
			must(t, os.Rename(link+".new", link))
			await(t, w, link, "link replaced")
			must(t, os.Remove(file))
			await(t, w, file, "removed")
			must(t, os.WriteFile(filepath.Join(other, "new"), nil, 0o644))
			await(t, w, filepath.Join(other, "new"), "created")
		})
	}
}

// TestMissingDirectory adds a directory that does not exist.
func TestMissingDirectory(t *testing.T) {
	w := newPolling(func(Polling) {})
	defer w.Close()
	if err := w.Add(filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("no error")
	}
}
