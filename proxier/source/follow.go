package source

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
	"k8s.io/apimachinery/pkg/api/equality"
)

const (
	quiet    = 50 * time.Millisecond // without an event, until a burst of them counts as over
	patience = time.Second           // with a burst that does not end
	retry    = 2 * time.Second       // when something could not be read or watched
)

// Run applies everything that is there to sink, calls its Synced, and then follows the changes until ctx ends; it
// returns nil then. An error is only returned before Synced: when the path cannot be read, or the kernel has no watcher to spare.
//
// After that, trouble is given to report and Run goes on. report gets the problems that Load has, each of them once
// until it goes away. Objects stay as they were applied while the path, their file, or anything in their file cannot be
// read: a file may be half written. They are deleted when they are gone from a file that can be read, or with their file.
// So an empty path has no objects, and one that was removed still has those it had.
//
// Both sink and report are called by the goroutine that called Run.
func (d *Dir) Run(ctx context.Context, sink Sink, report func(error)) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch manifests in %s: %w", d.path, err)
	}
	defer watcher.Close()
	f := follower{dir: d, sink: sink, report: report, watcher: watcher}
	if err := f.reload(); err != nil {
		return err
	}
	sink.Synced()
	f.follow(ctx)
	return nil
}

// follower is one Run of a Dir.
type follower struct {
	dir     *Dir
	sink    Sink
	report  func(error)
	watcher *fsnotify.Watcher

	listed     listing
	delivered  []manifest      // what the sink has, in the order in which it is read
	reported   map[string]bool // problems that are there and were told
	incomplete bool            // something could not be read or watched
}

// follow reloads after each burst of events until ctx ends.
func (f *follower) follow(ctx context.Context) {
	timer := time.NewTimer(retry)
	defer timer.Stop()
	if !f.incomplete {
		timer.Stop()
	}
	var burst time.Time // when the events began that the timer waits for
	changed := func() {
		now := time.Now()
		if burst.IsZero() {
			burst = now
		}
		timer.Reset(max(0, min(quiet, patience-now.Sub(burst))))
	}
	for {
		select {
		case <-ctx.Done():
			return
		case event := <-f.watcher.Events:
			if f.matters(event) {
				changed()
			}
		case err := <-f.watcher.Errors:
			// The kernel dropped events, or something worse happened: look.
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				f.report(fmt.Errorf("watch manifests in %s: %w", f.dir.path, err))
			}
			changed()
		case <-timer.C:
			burst = time.Time{}
			if err := f.reload(); err != nil {
				f.tell([]error{err})
			}
			if f.incomplete {
				timer.Reset(retry)
			}
		}
	}
}

// matters tells an event that concerns manifests from what else goes on in a directory that has to be watched.
func (f *follower) matters(event fsnotify.Event) bool {
	name := filepath.Clean(event.Name)
	_, itself := f.listed.directories[name]
	return itself || name == f.listed.self || f.listed.directories[filepath.Dir(name)]
}

// reload reads everything and delivers what has changed. With an error the path cannot be read, and nothing was changed.
func (f *follower) reload() error {
	f.incomplete = true
	files, problems, err := f.list()
	if err != nil {
		return err
	}
	s, err := f.dir.read(files)
	if err != nil {
		return err
	}
	f.incomplete = s.unread || len(problems) > 0
	f.tell(append(problems, s.problems...))
	f.deliver(f.remember(s))
	return nil
}

// list lists the files with everything already being watched that they depend on, so that no change after the listing
// goes without an event.
func (f *follower) list() (files []string, problems []error, err error) {
	f.listed, _ = f.dir.list()
	for {
		problems = f.watch()
		again, err := f.dir.list()
		if maps.Equal(again.directories, f.listed.directories) {
			return again.files, problems, err
		}
		f.listed = again
	}
}

// watch has exactly the listed directories watched, and returns what is in the way.
func (f *follower) watch() []error {
	for _, directory := range f.watcher.WatchList() {
		if _, listed := f.listed.directories[directory]; !listed {
			_ = f.watcher.Remove(directory) // fails only if the directory is gone
		}
	}
	var problems []error
	for _, directory := range slices.Sorted(maps.Keys(f.listed.directories)) {
		// Also for those watched: it may be another directory of the same name by now.
		if err := f.watcher.Add(directory); err != nil {
			problems = append(problems, fmt.Errorf("watch manifests in %s: %w", directory, err))
		}
	}
	return problems
}

// tell reports the problems that were not there the last time.
func (f *follower) tell(problems []error) {
	before := f.reported
	f.reported = make(map[string]bool, len(problems))
	for _, problem := range problems {
		text := problem.Error()
		if !before[text] && !f.reported[text] {
			f.report(problem)
		}
		f.reported[text] = true
	}
}

// remember adds to what was read the objects that were delivered from a file which cannot be decoded in full now.
func (f *follower) remember(s snapshot) []manifest {
	wanted := s.manifests
	read := index(wanted)
	for _, m := range f.delivered {
		if _, ok := read[m.identity]; !ok && s.partial[m.place.file] {
			wanted = append(wanted, m)
		}
	}
	return wanted
}

// deliver brings the sink from what it has to wanted. New objects come before old ones go, so that an EndpointSlice
// that takes the place of another leaves no gap.
func (f *follower) deliver(wanted []manifest) {
	had, wants := index(f.delivered), index(wanted)
	for i, m := range wanted {
		if old, ok := had[m.identity]; ok && equality.Semantic.DeepEqual(old.object, m.object) {
			wanted[i].object = old.object
			continue
		}
		f.sink.Apply(m.object)
	}
	for _, m := range f.delivered {
		if _, ok := wants[m.identity]; !ok {
			f.sink.Delete(m.object)
		}
	}
	f.delivered = wanted
}

func index(manifests []manifest) map[identity]manifest {
	indexed := make(map[identity]manifest, len(manifests))
	for _, m := range manifests {
		indexed[m.identity] = m
	}
	return indexed
}
