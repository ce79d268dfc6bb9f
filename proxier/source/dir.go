package source

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"k8s.io/apimachinery/pkg/runtime"
)

// Dir is a source that reads manifests, as kubectl prints and applies them: one file, or the files in a
// directory whose names end in .yaml, .yml or .json. Like kubectl apply -f, it does not descend into
// subdirectories. It ignores hidden files. It reads the files in the order of their names, and uses the first
// of several manifests of an object.
type Dir struct {
	path string
}

// NewDir returns the source for the file or directory path.
func NewDir(path string) *Dir {
	return &Dir{path: filepath.Clean(path)}
}

// Load reads the manifests once. It returns errors in single files, documents and objects as problems,
// together with the good objects; an Ignored among the problems is not an error. It returns err if it cannot
// read the path.
func (d *Dir) Load() (objects []runtime.Object, problems []error, err error) {
	r := newReading(func(_ identity, obj object, _ string) { objects = append(objects, obj) })
	if err := d.read(r, func(string, bool) {}); err != nil {
		return nil, nil, err
	}
	return objects, r.problems, nil
}

// read reads the manifests into r. Before it reads anything in a directory, it calls watch, so that a
// follower does not miss a change. If all is false, only the entry with the name of the path matters in the
// directory.
func (d *Dir) read(r *reading, watch func(directory string, all bool)) error {
	files, err := d.list(watch)
	if err != nil {
		return fmt.Errorf("read manifests: %w", err)
	}
	for _, file := range files {
		if info, err := os.Lstat(file); err == nil && info.Mode()&fs.ModeSymlink != 0 {
			// The kubelet updates a mounted ConfigMap by replacing the link ..data in the same directory.
			watch(filepath.Dir(file), true)
			if target, err := filepath.EvalSymlinks(file); err == nil {
				watch(filepath.Dir(target), true)
			}
		}
		err := r.decodeFile(file)
		switch {
		case err == nil:
		case file == d.path:
			return fmt.Errorf("read manifests: %w", err)
		default:
			r.problems = append(r.problems, fmt.Errorf("read manifests: %w", err))
			r.partial[file] = true
			// A broken link causes an event when it is repaired; other errors may pass without one.
			r.retry = r.retry || !errors.Is(err, fs.ErrNotExist)
		}
	}
	if len(r.ignored) > 0 {
		r.problems = append(r.problems, r.ignored)
	}
	return nil
}

func (r *reading) decodeFile(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return r.decode(path, file)
}

// list returns the files to read, in order.
func (d *Dir) list(watch func(directory string, all bool)) (files []string, err error) {
	watch(filepath.Dir(d.path), false)
	info, err := os.Stat(d.path)
	if err != nil || !info.IsDir() {
		return []string{d.path}, err
	}
	watch(d.path, true)
	extensions := []string{".yaml", ".yml", ".json"}
	entries, err := os.ReadDir(d.path)
	for _, entry := range entries {
		file := filepath.Join(d.path, entry.Name())
		if entry.Name()[0] == '.' || !slices.Contains(extensions, filepath.Ext(file)) {
			continue
		}
		// Skip directories, and pipes, which would block. Do not skip an error: reading reports it.
		if info, err := os.Stat(file); err != nil || info.Mode().IsRegular() {
			files = append(files, file)
		}
	}
	return files, err
}
