package proxier

import (
	"context"
	"math"
	"time"

	"github.com/nftproxy/nftproxy/proxier/config"
	"github.com/nftproxy/nftproxy/proxier/status"
)

// Histories say when the connections of a port came, for people who look at the status of the node. The
// counters are read for each step, also while nobody looks, because people look when something has happened.
// Reading takes at most one part in sampleShare of a CPU; then a read covers several steps.
const (
	historyStep  = 30 * time.Second
	historySteps = 30
	sampleShare  = 500
	// maxHistories bounds the memory of histories to 3 MB. Further ports that have connections at the same time
	// have none.
	maxHistories = 25_000
)

// traffic is when the connections of a port came. The zero value is that of a port without any.
type traffic struct {
	read        uint32 // the number of the last read that found some
	found       uint32 // by it
	foundBefore uint32 // by the read before it
	lastSteps   *history
}

// history has the connections in the last steps, and in the one that has not ended.
type history struct {
	last  int64 // number of the last step that has some
	steps [historySteps + 1]uint32
}

// stepOf returns the number of the step at a time.
func stepOf(t time.Time) int64 { return t.UnixNano() / int64(historyStep) }

// came records connections that came between two times.
func (h *history) came(n uint64, from, to time.Time) {
	total := max(to.Sub(from), 1)
	given := uint64(0)
	for step := max(stepOf(from), stepOf(to)-historySteps); step <= stepOf(to); step++ {
		until := min(time.Unix(0, (step+1)*int64(historyStep)).Sub(from), total)
		due := uint64(float64(n) * float64(until) / float64(total))
		if due == given {
			continue
		}
		h.advance(step)
		at := &h.steps[step%int64(len(h.steps))]
		*at = saturated(uint64(*at) + due - given)
		given = due
	}
}

// advance makes step the last one. A clock that is set far back starts a new history.
func (h *history) advance(step int64) {
	if most := int64(len(h.steps)); step-h.last > most || h.last-step > most {
		*h = history{last: step}
	}
	for h.last < step {
		h.last++
		h.steps[h.last%int64(len(h.steps))] = 0
	}
}

// until returns the connections in the steps that have ended, the oldest first; nil if there are none.
func (h *history) until(now time.Time) []uint32 {
	end := stepOf(now)
	if h == nil || end-h.last > historySteps {
		return nil
	}
	list := make([]uint32, 0, historySteps)
	for step := end - historySteps; step < end; step++ {
		n := uint32(0)
		if step <= h.last && h.last-step < int64(len(h.steps)) {
			n = h.steps[step%int64(len(h.steps))]
		}
		list = append(list, n)
	}
	return list
}

func saturated(n uint64) uint32 { return uint32(min(n, math.MaxUint32)) }

// came records connections to a port since the counters were read the last time. c.mu is locked.
func (c *connections) came(p *portCount, n uint64) {
	now := time.Now()
	if h := p.lastSteps; n == 0 {
		if h != nil && stepOf(now)-h.last > historySteps {
			p.lastSteps = nil
			c.histories--
		}
		return
	}
	if c.readAt.IsZero() {
		return // they came some time since the kernel counts
	}
	if next := c.reads + 1; p.read != next {
		p.foundBefore = 0
		if p.read == c.reads {
			p.foundBefore = p.found
		}
		p.read, p.found = next, 0
	}
	p.found = saturated(uint64(p.found) + n)
	if p.lastSteps == nil {
		if c.histories == maxHistories {
			return
		}
		c.histories++
		p.lastSteps = &history{}
	}
	p.lastSteps.came(n, c.readAt, now)
}

// rate returns the connections per second between the last two reads. c.mu is locked.
func (c *connections) rate(p *portCount) float64 {
	n := uint32(0)
	switch p.read {
	case c.reads:
		n = p.found
	case c.reads + 1: // a read is under way
		n = p.foundBefore
	}
	if c.between <= 0 {
		return 0
	}
	return float64(n) / c.between.Seconds()
}

// of returns the traffic of some ports, by rules.Entry.Port.
func (c *connections) of(ports []string) map[string]status.Traffic {
	c.mu.Lock()
	defer c.mu.Unlock()
	out, now := make(map[string]status.Traffic, len(ports)), time.Now()
	for _, port := range ports {
		if p := c.ports[port]; p != nil {
			out[port] = status.Traffic{
				Connections: p.sum, Rate: c.rate(p), History: p.lastSteps.until(now)}
		}
	}
	return out
}

// ranks returns the numbers by which an order sorts the ports, without those that are 0.
func (c *connections) ranks(order string) map[string]float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	ranks := map[string]float64{}
	for name, p := range c.ports {
		rank := float64(p.sum)
		if order == status.OrderRate {
			rank = c.rate(p)
		}
		if rank > 0 {
			ranks[name] = rank
		}
	}
	return ranks
}

// sample reads the counters for each step of the histories, and looks for problems of the host, until ctx ends.
func (p *Proxier) sample(ctx context.Context) {
	for ctx.Err() == nil {
		begin := time.Now()
		p.watchForwarding()
		p.watchTracking()
		if p.config.ConnectionCounters != config.CountOff {
			if err := p.connections.refresh(); err != nil {
				p.metrics.NetlinkError(err)
			}
		}
		end := time.Unix(0, (stepOf(begin)+1)*int64(historyStep)).Sub(begin)
		pause(ctx, max(end, sampleShare*time.Since(begin)))
	}
}
