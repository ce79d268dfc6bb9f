package config

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/nftproxy/nftproxy/proxier/filewatch"
)

// Watching says what to do about a changed configuration file. Watch calls the functions one at a time.
type Watching struct {
	// Check returns why a valid configuration would not work here. It is optional.
	Check func(*Config) error
	// Changed is called when the file has another configuration, which would work.
	Changed func()
	// Invalid is called when the file has become unusable, for each new reason, and with nil when it has
	// again the configuration that this process runs with.
	Invalid func(error)
	// Polling is called if changes are noticed late, because inotify is used up.
	Polling func(filewatch.Polling)
}

// settle is how long a file has to be unusable before that is reported: it may be half written, or about to
// be replaced.
const settle = time.Second

// Watch follows the configuration file until ctx is done, and returns nil then; without a file it only waits.
// The first content to compare with is the one that Complete read, so that Watch also notices a change before
// the call. It follows a file that is written in place or replaced, and a symbolic link that changes its
// target, as in a mounted ConfigMap. A file that means the same as before is not a change. It fails if it
// cannot read the directory of the file.
func (c *Config) Watch(ctx context.Context, w Watching) error {
	if c.ConfigFile == "" {
		<-ctx.Done()
		return nil
	}
	watcher := filewatch.New(w.Polling)
	defer watcher.Close()
	// Watch directories and not the file, which may be replaced. The file of a ConfigMap is a link to
	// ..data/file in the same directory, where ..data is the link that changes. Any other link is resolved
	// once, at the start.
	err := watcher.Add(filepath.Dir(c.ConfigFile))
	if target, missing := filepath.EvalSymlinks(c.ConfigFile); missing == nil && err == nil {
		// A ConfigMap that changes at this moment has no such directory any more, and ..data has changed.
		if err = watcher.Add(filepath.Dir(target)); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("watch configuration %s: %w", c.ConfigFile, err)
	}
	f := fileState{Watching: w, running: c, seen: c.loaded}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.look():
		case <-watcher.Events:
		}
	}
}

// fileState is what Watch knows about the file.
type fileState struct {
	Watching
	running *Config

	seen     []byte    // the last content that was usable
	reason   string    // why the file is unusable; "": it is usable
	since    time.Time // when that became the reason
	reported string    // the last reason that was reported; "": none since the file was usable
}

// look reads the file. It returns when to look again without an event: nil is never.
func (f *fileState) look() <-chan time.Time {
	data, err := os.ReadFile(f.running.ConfigFile)
	if err == nil && bytes.Equal(data, f.seen) {
		f.usable()
		return nil
	}
	next, err := f.reload()
	if err != nil {
		return f.unusable(err)
	}
	f.seen = next.loaded
	f.usable()
	if !next.equal(f.running) {
		f.Changed()
	}
	return nil
}

// reload returns the configuration that a new process would have.
func (f *fileState) reload() (*Config, error) {
	next, _, err := f.running.options.Complete()
	if err == nil && f.Check != nil {
		err = f.Check(next)
	}
	return next, err
}

func (f *fileState) usable() {
	f.reason = ""
	if f.reported != "" {
		f.reported = ""
		f.Invalid(nil)
	}
}

func (f *fileState) unusable(err error) <-chan time.Time {
	if f.reason != err.Error() {
		f.reason, f.since = err.Error(), time.Now()
	}
	if left := settle - time.Since(f.since); left > 0 {
		return time.After(left)
	}
	if f.reported != f.reason {
		f.reported = f.reason
		f.Invalid(err)
	}
	return nil
}

// equal reports whether two configurations from the same flags mean the same.
func (c *Config) equal(other *Config) bool {
	return c.MinSyncPeriodSet == other.MinSyncPeriodSet && equality.Semantic.DeepEqual(c.Kube, other.Kube)
}
