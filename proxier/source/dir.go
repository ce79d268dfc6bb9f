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

// Dir is a source that reads manifests, as kubectl prints and applies them: one file, or the files of a directory
// whose names end in .yaml, .yml or .json. Like kubectl apply -f, it does not descend into directories; hidden files are
// passed by. Files are read in the order of their names, and of two manifests of one object the first counts.
type Dir struct {
	path string
}

// NewDir returns the source of the file or directory path.
func NewDir(path string) *Dir {
	return &Dir{path: filepath.Clean(path)}
}

// Load reads everything once. What is wrong with single files, documents and objects is told in problems, and does not
// keep the others from being read; a *Passed among them is no failure. err is for a path that cannot be read.
func (d *Dir) Load() (objects []runtime.Object, problems []error, err error) {
	listed, err := d.list()
	if err != nil {
		return nil, nil, err
	}
	s, err := d.read(listed.files)
	if err != nil {
		return nil, nil, err
	}
	for _, m := range s.manifests {
		objects = append(objects, m.object)
	}
	return objects, s.problems, nil
}

// listing is what there is to read, and to watch.
type listing struct {
	files []string // in the order of their names
	// directories to watch, without symbolic links in them. True: whatever happens in it matters. False: it is the
	// directory that self is in, and only self matters.
	directories map[string]bool
	self        string
}

// list finds the files. With an error, which is for a path that cannot be read, the directories are still good.
func (d *Dir) list() (listing, error) {
	l := listing{directories: map[string]bool{}}
	if parent, err := filepath.EvalSymlinks(filepath.Dir(d.path)); err == nil {
		l.self = filepath.Join(parent, filepath.Base(d.path))
		l.directories[parent] = false
	}
	info, err := os.Stat(d.path)
	if err != nil {
		return l, fmt.Errorf("read manifests: %w", err)
	}
	if !info.IsDir() {
		l.files = []string{d.path}
		l.followLink(d.path)
		return l, nil
	}
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return l, fmt.Errorf("read manifests: %w", err)
	}
	if target, err := filepath.EvalSymlinks(d.path); err == nil {
		l.directories[target] = true
	}
	for _, entry := range entries {
		file := filepath.Join(d.path, entry.Name())
		if isManifest(file) {
			l.files = append(l.files, file)
			l.followLink(file)
		}
	}
	return l, nil
}

// isManifest tells by the name, and by what is there: a pipe would block, a directory is passed by. What cannot be looked
// at counts, so that reading it says why.
func isManifest(file string) bool {
	extensions := []string{".yaml", ".yml", ".json"}
	if filepath.Base(file)[0] == '.' || !slices.Contains(extensions, filepath.Ext(file)) {
		return false
	}
	info, err := os.Stat(file)
	return err != nil || info.Mode().IsRegular()
}

// followLink has the directories on both ends of a symbolic link watched. A mounted ConfigMap changes when ..data, beside
// the link, is made to point elsewhere.
func (l *listing) followLink(file string) {
	if info, err := os.Lstat(file); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		return
	}
	for _, end := range []func(string) (string, error){directoryOfLink, directoryOfTarget} {
		if directory, err := end(file); err == nil {
			l.directories[directory] = true
		}
	}
}

func directoryOfLink(file string) (string, error) {
	return filepath.EvalSymlinks(filepath.Dir(file))
}

func directoryOfTarget(file string) (string, error) {
	target, err := filepath.EvalSymlinks(file)
	return filepath.Dir(target), err
}

// snapshot is everything that was read at one time.
type snapshot struct {
	manifests []manifest // in the order of files and documents, one for each object
	problems  []error
	partial   map[string]bool // files that hold, or may hold, more than could be decoded
	unread    bool            // a file could not be read, for a reason that may pass
}

// read reads the listed files. The error is for the path itself, if it is a file.
func (d *Dir) read(files []string) (snapshot, error) {
	s := snapshot{partial: map[string]bool{}}
	first := map[identity]place{}
	passed := map[string]int{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil && file == d.path {
			return snapshot{}, fmt.Errorf("read manifests: %w", err)
		}
		if err != nil {
			if _, gone := os.Lstat(file); errors.Is(gone, fs.ErrNotExist) {
				continue // removed since it was listed
			}
			s.problems = append(s.problems, fmt.Errorf("read manifests: %w", err))
			s.partial[file] = true
			s.unread = s.unread || !errors.Is(err, fs.ErrNotExist) // a link to nothing stays one
			continue
		}
		c := decode(file, data)
		s.problems = append(s.problems, c.problems...)
		s.partial[file] = c.partial
		for kind, n := range c.passed {
			passed[kind] += n
		}
		for _, m := range c.manifests {
			if before, taken := first[m.identity]; taken {
				s.problems = append(s.problems, fmt.Errorf("%s: ignored, it is already in %s", m.place, before))
				continue
			}
			first[m.identity] = m.place
			s.manifests = append(s.manifests, m)
		}
	}
	if len(passed) > 0 {
		s.problems = append(s.problems, &Passed{Kinds: passed})
	}
	return s, nil
}
