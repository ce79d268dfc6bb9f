package proxier

import (
	"time"

	"github.com/nftproxy/nftproxy/proxier/kernel"
)

// checkPeriod is how often the tables are checked for changes by other processes.
const checkPeriod = 100 * time.Millisecond

// Other processes may change their own tables all the time. Reading ours because of that takes at most one
// part in compareShare of the time, and happens no more often than every comparePeriod.
const (
	compareShare  = 200
	comparePeriod = 5 * time.Second
)

// compareTimer says when a suspicion leads to a full sync.
type compareTimer struct {
	suspected bool
	last      time.Time     // of a full sync
	took      time.Duration // by it
}

func (t *compareTimer) suspect() { t.suspected = true }

func (t *compareTimer) compared(took time.Duration) {
	*t = compareTimer{last: time.Now(), took: took}
}

func (t *compareTimer) due() bool {
	return t.suspected && time.Since(t.last) > max(comparePeriod, compareShare*t.took)
}

// checkDrift finds out whether another process changed our tables, and requires a full sync that repairs
// them.
func (r *reconciler) checkDrift() {
	if r.due != none {
		return
	}
	found, err := r.tables.CheckDrift(r.builder.Ruleset())
	if err == nil {
		r.checking.succeeded()
	}
	switch {
	case err != nil:
		r.checking.failed(err)
		r.metrics.NetlinkError(err)
		r.compare.suspect()
	case found == kernel.Unknown:
		r.compare.suspect() // a full sync also finds what the check cannot see
	case found == kernel.Drifted:
		r.require(drift)
	}
	if r.compare.due() {
		r.require(suspicion)
	}
}
