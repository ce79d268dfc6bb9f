package lab

import (
	"context"
	"maps"
	"net/netip"
	"sync"
	"time"
)

// Load is a steady stream of requests in the background.
type Load struct {
	stop    context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex
	report Report
}

// Steady makes a request every interval, until ctx ends or Stop is called. Requests do not wait for each
// other, but at most 64 run at a time; further ones are skipped.
func (l *Lab) Steady(ctx context.Context, from, proto string, to netip.AddrPort,
	interval time.Duration) *Load {
	ctx, stop := context.WithCancel(ctx)
	load := &Load{stop: stop}
	load.running.Go(func() {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		slots := make(chan struct{}, 64)
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			select {
			case slots <- struct{}{}:
			default:
				continue
			}
			load.running.Go(func() {
				result := l.Request(from, proto, to)
				load.mu.Lock()
				load.report.add(result)
				load.mu.Unlock()
				<-slots
			})
		}
	})
	return load
}

// Report counts the requests that have ended so far.
func (load *Load) Report() Report {
	load.mu.Lock()
	defer load.mu.Unlock()
	report := load.report
	report.By, report.Sources = maps.Clone(report.By), maps.Clone(report.Sources)
	return report
}

// Stop ends the load, waits for running requests (at most 3 s) and counts all of them. Stop a load before you
// close its lab.
func (load *Load) Stop() Report {
	load.stop()
	load.running.Wait()
	return load.Report()
}
