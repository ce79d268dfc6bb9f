package status

import (
	"slices"
	"sync"
	"time"
)

// Times keeps the last durations of something, to tell their quantiles exactly: the buckets of Prometheus for
// the same begin at 0.25 s, and most changes take a hundredth of that. The zero value is ready to use, by
// several goroutines.
type Times struct {
	mu   sync.Mutex
	last [512]time.Duration
	n    int // that were added
}

// Add adds a duration.
func (t *Times) Add(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last[t.n%len(t.last)] = max(d, 0)
	t.n++
}

// Latency returns the quantiles of the durations that are kept.
func (t *Times) Latency() Latency {
	t.mu.Lock()
	kept := slices.Clone(t.last[:min(t.n, len(t.last))])
	t.mu.Unlock()
	if len(kept) == 0 {
		return Latency{}
	}
	slices.Sort(kept)
	at := func(percent int) float64 { return kept[(len(kept)*percent+99)/100-1].Seconds() } // nearest rank
	return Latency{P50: at(50), P99: at(99), Samples: len(kept)}
}
