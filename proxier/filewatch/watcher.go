// Package filewatch tells when files in directories change: by inotify, and by looking at the files again and
// again where the user of this process has used up inotify. The kernel allows 128 instances of inotify per
// user (fs.inotify.max_user_instances), and on a node all containers that run as root share them. A proxy
// must not end because another program has taken the last one.
//
// Start reading at [New].
package filewatch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// Period is how often directories are looked at for which inotify has nothing left.
const Period = 2 * time.Second

// Polling says that a directory is looked at every Period, and why.
type Polling struct {
	Dir string
	Err error // of inotify
}

func (p Polling) Error() string {
	return fmt.Sprintf("inotify cannot watch %s (%v): looking for changes every %v instead; "+
		"to have them noticed at once, raise the sysctl fs.inotify.max_user_instances or max_user_watches "+
		"and restart nftproxy", p.Dir, p.Err, Period)
}

func (p Polling) Unwrap() error { return p.Err }

// Watcher tells about changes in directories until Close.
type Watcher struct {
	// Events has the path of each entry of a directory that may have changed, and "" if any may have.
	Events <-chan string

	polling func(Polling)
	events  chan string
	inotify *fsnotify.Watcher // nil: there is no instance left
	failed  error             // why inotify is nil
	done    chan struct{}
	ended   sync.WaitGroup

	mu     sync.Mutex
	polled map[string]map[string]stamp // by directory and entry
}

// stamp changes when a file is written or replaced. The time is that of the inode, which no program can set.
type stamp struct {
	inode   uint64
	size    int64
	changed unix.Timespec
}

// New returns a Watcher without directories. It calls polling, from Add, for the first directory for which
// inotify has nothing left.
func New(polling func(Polling)) *Watcher {
	inotify, err := fsnotify.NewWatcher()
	return newWatcher(inotify, err, polling)
}

// newWatcher returns a Watcher that uses inotify, or does not if there is an error.
func newWatcher(inotify *fsnotify.Watcher, err error, polling func(Polling)) *Watcher {
	events := make(chan string)
	w := &Watcher{Events: events, polling: polling, events: events, inotify: inotify, failed: err,
		done: make(chan struct{}), polled: map[string]map[string]stamp{}}
	w.ended.Go(w.run)
	return w
}

// Close ends the events.
func (w *Watcher) Close() {
	close(w.done)
	w.ended.Wait()
	if w.inotify != nil {
		_ = w.inotify.Close()
	}
}

// Add watches a directory, from now on. To add one again has an effect if another directory has its name now.
// It fails if the directory cannot be read.
func (w *Watcher) Add(dir string) error {
	err := w.failed
	if w.inotify != nil {
		err = w.inotify.Add(dir)
	}
	if !usedUp(err) {
		return err
	}
	// A directory that cannot be read for now because of another limit is compared with nothing later.
	found, readErr := look(dir)
	if readErr != nil && !usedUp(readErr) {
		return readErr
	}
	w.mu.Lock()
	first := len(w.polled) == 0
	w.polled[dir] = found
	w.mu.Unlock()
	if first {
		w.polling(Polling{dir, err})
	}
	return nil
}

// usedUp reports whether an error is about a limit: of instances or files of the user, of the process or of
// the system, or of watches.
func usedUp(err error) bool {
	for _, errno := range []unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOSPC, unix.ENOMEM} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// run passes events on until Close.
func (w *Watcher) run() {
	var events chan fsnotify.Event
	var lost chan error
	if w.inotify != nil {
		events, lost = w.inotify.Events, w.inotify.Errors
	}
	ticker := time.NewTicker(Period)
	defer ticker.Stop()
	for {
		select {
		case <-w.done:
			return
		case event := <-events:
			w.send(event.Name)
		case <-lost:
			w.send("")
		case <-ticker.C:
			w.poll()
		}
	}
}

func (w *Watcher) send(path string) {
	select {
	case w.events <- path:
	case <-w.done:
	}
}

// poll looks at the directories that inotify does not watch.
func (w *Watcher) poll() {
	w.mu.Lock()
	var changed []string
	for dir, before := range w.polled {
		now, _ := look(dir) // one that is gone has no entries
		w.polled[dir] = now
		for name, s := range now {
			if before[name] != s {
				changed = append(changed, filepath.Join(dir, name))
			}
		}
		for name := range before {
			if _, ok := now[name]; !ok {
				changed = append(changed, filepath.Join(dir, name))
			}
		}
	}
	w.mu.Unlock()
	for _, path := range changed {
		w.send(path)
	}
}

// look returns the entries of a directory.
func look(dir string) (map[string]stamp, error) {
	entries, err := os.ReadDir(dir)
	found := make(map[string]stamp, len(entries))
	for _, e := range entries {
		var s unix.Stat_t
		if unix.Lstat(filepath.Join(dir, e.Name()), &s) == nil {
			found[e.Name()] = stamp{s.Ino, s.Size, s.Ctim}
		}
	}
	return found, err
}
