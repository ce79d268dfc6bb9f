package source

import (
	"context"
	"fmt"
	"hash/maphash"
	"path/filepath"
	"slices"
	"strings"
	"time"

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
	f := follower{Dir: d, sink: sink, report: report, watcher: watcher,
		seed: maphash.MakeSeed(), delivered: map[identity]delivery{}}
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
	reported    map[string]bool // the problems that are not solved
	retry       bool            // something could not be read or watched

	seed      maphash.Seed
	delivered map[identity]delivery // the objects that sink has
}

// delivery is what a follower keeps of an object. The objects themselves would be most of the memory of the
// proxy.
type delivery struct {
	content uint64 // hash
	file    string
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

// reload reads the manifests and delivers the changes: the new and changed objects, and then those that are
// gone, so that there is no gap when an EndpointSlice replaces another. It returns an error if it cannot read
// the path, and then deletes nothing.
func (f *follower) reload() error {
	var problems []error
	f.retry, f.directories = true, map[string]bool{}
	r := newReading(f.apply)
	err := f.read(r, func(directory string, all bool) {
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
	f.deleteGone(r)
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

// apply delivers an object if it is new or has changed. In protobuf an empty list is the same as none.
func (f *follower) apply(id identity, obj object, file string) {
	content, err := obj.Marshal()
	before, known := f.delivered[id]
	now := delivery{maphash.Bytes(f.seed, content), file}
	f.delivered[id] = now
	if err != nil || !known || before.content != now.content {
		f.sink.Apply(obj)
	}
}

// deleteGone deletes the objects that a reading did not find, except those that may be among the ones that
// could not be decoded.
func (f *follower) deleteGone(r *reading) {
	var gone []identity
	for id, d := range f.delivered {
		if _, found := r.places[id]; !found && !r.partial[d.file] {
			gone = append(gone, id)
		}
	}
	slices.SortFunc(gone, func(a, b identity) int { return strings.Compare(a.String(), b.String()) })
	for _, id := range gone {
		delete(f.delivered, id)
		f.sink.Delete(id.object())
	}
}
