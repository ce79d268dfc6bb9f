package source

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Reporter receives what an operator should know about the API server. Its functions are called one at a
// time, except Heard. A nil function is not called.
type Reporter struct {
	// Failed receives an error: once until it is solved or has another cause.
	Failed func(error)
	// Recovered receives a sentence which says that something that failed works again.
	Recovered func(string)
	// Heard is called when a part of a list or watch of a resource ("services") arrives, also a bookmark, and
	// when the source begins to follow the resource.
	Heard func(resource string)
}

// complete returns a Reporter without nil functions.
func (r Reporter) complete() Reporter {
	if r.Failed == nil {
		r.Failed = func(error) {}
	}
	if r.Recovered == nil {
		r.Recovered = func(string) {}
	}
	if r.Heard == nil {
		r.Heard = func(string) {}
	}
	return r
}

// outage is the time in which requests get no answer. All informers share it, because they all see it.
type outage struct {
	since  time.Time
	silent map[*informer]struct{} // whose last request has got no answer
	causes map[string]struct{}    // that were reported
}

// unanswered records that a request of an informer got no answer, and returns whether to report the cause.
func (o *outage) unanswered(i *informer, cause string) bool {
	if len(o.silent) == 0 {
		o.since = i.lastHeard()
		o.silent, o.causes = map[*informer]struct{}{}, map[string]struct{}{}
	}
	o.silent[i] = struct{}{}
	_, known := o.causes[cause]
	o.causes[cause] = struct{}{}
	return !known
}

// answered records that a request of an informer was answered, and returns whether this ends the outage: the
// API server answers all informers again.
func (o *outage) answered(i *informer) bool {
	before := len(o.silent)
	delete(o.silent, i)
	return before > 0 && len(o.silent) == 0
}

// reportMissing waits for a limited time, then reports the informers that have not received their objects,
// waits for these as well, and reports that they have. It returns whether ctx has not ended.
func (r *apiRun) reportMissing(ctx context.Context, informers []*informer) bool {
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, r.limits.start)
	defer cancel()
	var missing []string
	for _, i := range informers {
		if !i.wait(limited) && ctx.Err() == nil {
			missing = append(missing, i.name)
		}
	}
	if len(missing) > 0 {
		names := strings.Join(missing, ", no ")
		r.reportError(fmt.Errorf("start: no %s received within %v", names, r.limits.start))
	}
	for _, i := range informers {
		if !i.wait(ctx) {
			return false
		}
	}
	if len(missing) > 0 {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.report.Recovered(fmt.Sprintf("%s received after %v", strings.Join(missing, ", "), since(began)))
	}
	return true
}

// since returns the time since then in whole seconds.
func since(then time.Time) time.Duration { return time.Since(then).Round(time.Second) }
