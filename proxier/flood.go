package proxier

import (
	"sync"
	"time"

	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/klog/v2"
)

// At most lineRate lines a second are logged about one kind of object, with bursts of lineBurst, and every
// summaryPeriod how many others there were.
const (
	lineRate      = 0.1
	lineBurst     = 100
	summaryPeriod = time.Minute
)

// flood bounds the lines about one kind of object, of which there may be tens of thousands. It is safe for
// concurrent use.
type flood struct {
	lines flowcontrol.PassiveRateLimiter

	mu         sync.Mutex
	leftOut    int       // lines since the last summary
	summarised time.Time // when the last summary was logged
}

func newFlood() *flood {
	return &flood{lines: flowcontrol.NewTokenBucketPassiveRateLimiter(lineRate, lineBurst)}
}

// passes reports whether to log another line, and counts it otherwise. At -v=2 it leaves out none.
func (f *flood) passes() bool {
	if klog.V(2).Enabled() || f.lines.TryAccept() {
		return true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leftOut++
	return false
}

// due returns how many lines were left out, once a summary is due, and begins to count anew.
func (f *flood) due() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.leftOut
	if n == 0 || time.Since(f.summarised) < summaryPeriod {
		return 0
	}
	f.leftOut, f.summarised = 0, time.Now()
	return n
}

// summarise logs how many lines about Services and about objects of the source were left out.
func (r *reconciler) summarise() {
	if n := r.events.lines.due(); n > 0 {
		klog.InfoS("More Services have problems than are logged one by one; -v=2 logs each",
			"services", r.builder.Problems(), "leftOut", n)
	}
	if n := r.invalid.due(); n > 0 {
		klog.InfoS("More objects are invalid than are logged one by one; -v=2 logs each", "leftOut", n)
	}
}
