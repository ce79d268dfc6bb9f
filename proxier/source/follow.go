package source

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/nftproxy/nftproxy/proxier/filewatch"
)

const (
	quietPeriod   = 50 * time.Millisecond // without an event, after which a burst of events is over
	maxBurst      = time.Second           // after which to read even if events continue
	retryInterval = 2 * time.Second       // when something could not be read or watched
)

// Run applies all objects to sink, calls its Synced, and follows the changes until ctx ends; then it returns
// nil. It returns an error only before Synced, if it cannot read the path.
//
// It reports the problems that Load returns, each once until it is solved, and a filewatch.Polling. While the
// path or a file cannot be read, or a part of a file cannot be decoded, Run keeps the objects that were
// there, because a file may be half written. It deletes an object when its file is gone, or can be decoded
// completely and does not contain the object. It calls sink and report in the goroutine of its caller.
func (d *Dir) Run(ctx context.Context, sink Sink, report func(error)) error {
	watcher := filewatch.New(func(p filewatch.Polling) { report(p) })
	defer watcher.Close()
	f := follower{Dir: d, sink: sink, report: report, watcher: watcher}
	if err := f.reload(); err != nil {
		return err
	}
	sink.Synced()
	for f.wait(ctx) {
		if err := f.reload(); err != nil {
			f.reportNew([]error{err})
		}
	}
	return nil
}

// follower is one Run of a Dir.
type follower struct {
	*Dir
	sink    Sink
	report  func(error)
	watcher *filewatch.Watcher

	directories map[string]bool // the watched ones; false if only the entry of the path matters
	delivered   []manifest      // the objects that sink has
	reported    map[string]bool // the problems that are not solved
	retry       bool            // something could not be read or watched
}

// wait waits until it is time to read again. It returns false when ctx ends.
func (f *follower) wait(ctx context.Context) bool {
	timer := time.NewTimer(retryInterval)
	defer timer.Stop()
	if !f.retry {
		timer.Stop()
	}
	var deadline time.Time
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case path := <-f.watcher.Events:
			if path != "" && !f.matters(path) {
				continue
			}
		}
		if deadline.IsZero() {
			deadline = time.Now().Add(maxBurst)
		}
		timer.Reset(min(quietPeriod, time.Until(deadline)))
	}
}

// matters returns true for an event that concerns manifests, and false for one of another file next to them.
func (f *follower) matters(name string) bool {
	_, watched := f.directories[name]
	return watched || f.directories[filepath.Dir(name)] || filepath.Base(name) == filepath.Base(f.path)
}

// reload reads the manifests and delivers the changes. It returns an error, and delivers nothing, if it
// cannot read the path.
func (f *follower) reload() error {
	var problems []error
	f.retry, f.directories = true, map[string]bool{}
	r, err := f.read(func(directory string, all bool) {
		real, err := filepath.EvalSymlinks(directory)
		if _, watched := f.directories[real]; err == nil && !watched {
			err = f.watcher.Add(real) // again, because another directory may have the name now
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("watch manifests in %s: %w", directory, err))
			return
		}
		f.directories[real] = f.directories[real] || all
	})
	if err != nil {
		return err
	}
	f.retry = r.retry || len(problems) > 0
	f.reportNew(append(problems, r.problems...))
	f.deliver(r)
	return nil
}

// reportNew reports the problems that did not exist at the last call.
func (f *follower) reportNew(problems []error) {
	before := f.reported
	f.reported = map[string]bool{}
	for _, problem := range problems {
		text := problem.Error()
		if !before[text] && !f.reported[text] {
			f.report(problem)
		}
		f.reported[text] = true
	}
}

// deliver applies the new and changed objects, and then deletes those that are gone: there is no gap when an
// EndpointSlice replaces another.
func (f *follower) deliver(r *reading) {
	gone := map[identity]object{}
	for _, m := range f.delivered {
		gone[m.identity] = m.object
	}
	for _, m := range r.manifests {
		if !equality.Semantic.DeepEqual(gone[m.identity], m.object) {
			f.sink.Apply(m.object)
		}
		delete(gone, m.identity)
	}
	for _, m := range f.delivered {
		switch {
		case gone[m.identity] == nil:
		case r.partial[m.file]: // it may be among the objects that could not be decoded
			r.manifests = append(r.manifests, m)
		default:
			f.sink.Delete(m.object)
		}
	}
	f.delivered = r.manifests
}
