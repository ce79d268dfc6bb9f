package proxier

import (
	"sync"
	"time"

	"github.com/nftproxy/nftproxy/proxier/config"
)

// progress is what people are told about the reconciler while it is busy: its goroutine answers nobody then.
type progress struct {
	mu    sync.Mutex
	begun time.Time // of the sync that runs; zero: none does
	facts facts     // as they were after the last sync
}

// facts are the state of the reconciler in a few words.
type facts struct {
	lastSync  time.Time // that succeeded
	lastError error     // of the last sync
	failing   time.Time // since when syncs fail; zero: they do not
	failures  int

	services, frontends, conflicts int
	counted                        string

	repairs    int
	repairedAt time.Time // the last repair
	repaired   string    // what it did
}

func (p *progress) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begun = time.Now()
}

func (p *progress) end(f facts) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begun, p.facts = time.Time{}, f
}

// known returns the facts after the last sync, and when the sync that runs began.
func (p *progress) known() (f facts, begun time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.facts, p.begun
}

// facts returns the facts as of now.
func (r *reconciler) facts() facts {
	f := facts{
		lastSync: r.lastSync, lastError: r.lastError, failing: r.syncing.since, failures: r.syncing.times,
		repairs: r.repairs, repairedAt: r.repairedAt, repaired: r.repaired, counted: config.CountOff,
	}
	ruleset := r.builder.Ruleset()
	if ruleset == nil {
		return f
	}
	f.services, f.frontends, f.conflicts = ruleset.Services(), ruleset.Len(), ruleset.Conflicts()
	switch services, endpoints := ruleset.Counting(); {
	case endpoints:
		f.counted = config.CountEndpoints
	case services:
		f.counted = config.CountServices
	}
	return f
}
