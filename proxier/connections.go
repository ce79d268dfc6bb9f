package proxier

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// connections adds up how many connections each port of a Service got. The kernel counts them by frontend,
// and a frontend that gets another shape, because its Service is scaled for example, starts at 0 again.
//
// A scrape reads the counters with a socket of its own, so that no sync waits for it. A transaction that
// replaces frontends reports what their counters were in the moment of the commit. So nothing is lost, and
// nothing counts twice: what a read finds of frontends that were replaced meanwhile is left to the next one.
type connections struct {
	read func(each func(kernel.Connections)) error // the counters in the kernel

	reading sync.Mutex // one read at a time
	tried   time.Time  // when the last read began

	mu        sync.Mutex
	readAt    time.Time     // the end of the last read; zero: there is none that new counts compare with
	reads     uint32        // how many reads have ended
	between   time.Duration // the last two of them
	histories int           // of ports
	frontends map[service.Frontend]counted
	ports     map[string]*portCount
	changing  []service.Frontend            // by the transaction under way
	changed   map[service.Frontend]struct{} // by transactions since the read began; nil: none is under way
}

// counted is what a counter had when it was read last.
type counted struct {
	port  string
	count uint64
}

// portCount is the sum of a port.
type portCount struct {
	sum       uint64
	frontends int
	traffic
}

// readEvery is how long the counters that were read count as new.
const readEvery = 5 * time.Second

func newConnections(read func(each func(kernel.Connections)) error) *connections {
	return &connections{
		read:      read,
		frontends: map[service.Frontend]counted{},
		ports:     map[string]*portCount{},
	}
}

// readConnections reads the counters in the kernel.
func (p *Proxier) readConnections(each func(kernel.Connections)) error {
	c, err := netlink.Dial()
	if err != nil {
		return fmt.Errorf("read counters: %w", err)
	}
	defer c.Close()
	return kernel.ReadConnections(c, p.families, each)
}

// sums returns the sums of the ports that had connections, by rules.Entry.Port. After an error they are as of
// the last read.
func (c *connections) sums() (iter.Seq2[string, uint64], error) {
	err := c.refresh()
	c.mu.Lock()
	defer c.mu.Unlock()
	sums := make(map[string]uint64, len(c.ports))
	for port, p := range c.ports {
		sums[port] = p.sum
	}
	return maps.All(sums), err
}

// refresh reads the counters unless they are new. After an error the sums are as of the last read.
func (c *connections) refresh() error {
	c.reading.Lock()
	defer c.reading.Unlock()
	if time.Since(c.tried) < readEvery {
		return nil
	}
	c.tried = time.Now()
	return c.update()
}

// update reads the kernel's counters and adds them up.
func (c *connections) update() error {
	c.mu.Lock()
	c.changed = map[service.Frontend]struct{}{}
	c.change()
	c.mu.Unlock()
	part := make([]kernel.Connections, 0, 1000) // a transaction waits for so many at most
	err := c.read(func(n kernel.Connections) {
		if n.Count == 0 {
			return
		}
		if part = append(part, n); len(part) == cap(part) {
			c.take(part)
			part = part[:0]
		}
	})
	c.take(part)
	c.mu.Lock()
	c.changed = nil
	if err == nil {
		c.ended()
	}
	c.mu.Unlock()
	return err
}

// ended records the end of a read.
func (c *connections) ended() {
	now := time.Now()
	if !c.readAt.IsZero() {
		c.between = now.Sub(c.readAt)
	}
	c.readAt = now
	c.reads++
}

// take adds counters that were read, unless their frontends have changed since the read began.
func (c *connections) take(found []kernel.Connections) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range found {
		if _, changed := c.changed[n.Frontend]; !changed {
			c.add(n)
		}
	}
}

// add adds what a counter has more than when it was read last.
func (c *connections) add(n kernel.Connections) {
	before, known := c.frontends[n.Frontend]
	if known && before.port != n.Port {
		c.drop(n.Frontend)
		before, known = counted{}, false
	}
	p := c.ports[n.Port]
	if p == nil {
		p = &portCount{}
		c.ports[n.Port] = p
	}
	if !known {
		p.frontends++
	}
	if n.Count < before.count {
		before.count = 0 // another process has replaced the element
	}
	p.sum += n.Count - before.count
	c.came(p, n.Count-before.count)
	c.frontends[n.Frontend] = counted{n.Port, n.Count}
}

// drop forgets a frontend, and a port with its last frontend.
func (c *connections) drop(f service.Frontend) {
	old, known := c.frontends[f]
	if !known {
		return
	}
	delete(c.frontends, f)
	p := c.ports[old.port]
	if p.frontends--; p.frontends == 0 {
		if p.lastSteps != nil {
			c.histories--
		}
		delete(c.ports, old.port)
	}
}

// begin notes the frontends that a transaction replaces or deletes. Call end after the transaction.
func (c *connections) begin(d *rules.Delta) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changing = frontendsOf(d.Delete)
	c.change()
}

// change notes the frontends that change, if a read is under way.
func (c *connections) change() {
	if c.changed == nil {
		return
	}
	for _, f := range c.changing {
		c.changed[f] = struct{}{}
	}
}

// last takes the last value of the counter of a frontend that the transaction replaces or deletes.
func (c *connections) last(n kernel.Connections) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n.Count > 0 {
		c.add(n)
		c.frontends[n.Frontend] = counted{port: n.Port} // the next one starts at 0
	}
}

// end forgets the frontends that a transaction has deleted. Ports without frontends are gone.
func (c *connections) end(d *rules.Delta, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	gone := c.changing
	c.changing = nil
	isServices := func(s nftables.Set) bool { return s.ID.Kind == nftables.Services }
	replaced := slices.ContainsFunc(d.Replace, isServices)
	if errors.Is(err, netlink.ErrUnknownOutcome) || err == nil && (replaced || len(d.Reset) > 0) {
		// It is not known which frontends are gone.
		clear(c.frontends)
		clear(c.ports)
		c.readAt, c.histories = time.Time{}, 0
		return
	}
	if err != nil || len(gone) == 0 {
		return
	}
	stays := make(map[service.Frontend]string, len(gone))
	for i := range d.Add {
		if e := &d.Add[i]; e.Set.Kind == nftables.Services {
			stays[e.KeyValues().Frontend()] = e.Comment
		}
	}
	for _, f := range gone {
		if port, found := stays[f]; !found || port != c.frontends[f].port {
			c.drop(f)
		}
	}
}

// frontendsOf returns the frontends of the elements that are in the map services.
func frontendsOf(elements []nftables.Element) (out []service.Frontend) {
	for i := range elements {
		if elements[i].Set.Kind == nftables.Services {
			out = append(out, elements[i].KeyValues().Frontend())
		}
	}
	return out
}
