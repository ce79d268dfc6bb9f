package proxier

import (
	"context"
	"time"
)

// Bounds of the pause before a failed sync is retried.
const (
	minRetry = 100 * time.Millisecond
	maxRetry = 10 * time.Second
)

// retry is when a failed sync is due again: after minRetry, and twice as long with each failure up to
// maxRetry. The zero value is ready to use.
type retry struct {
	due  <-chan time.Time // nil: the last sync succeeded
	next time.Duration
}

func (r *retry) pending() bool { return r.due != nil }

// after returns how long after a failure the sync is retried.
func (r *retry) after() time.Duration { return max(r.next, minRetry) }

func (r *retry) failed() {
	r.due, r.next = time.After(r.after()), min(2*r.after(), maxRetry)
}

func (r *retry) succeeded() { *r = retry{} }

// minPause is the shortest pause between syncs when minSyncPeriod is not configured.
const minPause = 10 * time.Millisecond

// pace bounds how often the proxier syncs.
type pace struct {
	period     time.Duration // minSyncPeriod
	configured bool
}

func (p *Proxier) pace() pace {
	return pace{p.config.Kube.NFTables.MinSyncPeriod.Duration, p.config.MinSyncPeriodSet}
}

// pauseAfter returns how long to wait after a sync that began at begin. Without a configured period the pause
// is as long as the sync took.
func (p pace) pauseAfter(begin time.Time) time.Duration {
	took := time.Since(begin)
	if p.configured {
		return p.period - took
	}
	return max(minPause, took)
}

func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
