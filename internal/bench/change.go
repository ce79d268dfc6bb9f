package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// change is a kind of change of a Service. Each change in a series affects another Service.
type change struct {
	name    string
	make    func(ctx context.Context, c *cluster, i int) error
	prepare func(ctx context.Context, c *cluster, i int) error // may be nil; not measured
	finish  func(ctx context.Context, c *cluster, i int) error // may be nil; not measured
	undoes  bool                                               // undoes the changes of the previous kind
}

func replaceEndpoint() change {
	return change{name: "endpoint replaced", make: func(ctx context.Context, c *cluster, i int) error {
		return c.update(ctx, c.replaced(c.spread(i)))
	}}
}

// changeKinds returns all kinds of changes in order. Some of them undo the changes of the previous kind.
func changeKinds() []change {
	newName := func(i int) string { return fmt.Sprintf("new-%d", i) }
	return []change{
		replaceEndpoint(),
		{name: "endpoint added", make: func(ctx context.Context, c *cluster, i int) error {
			i = c.spread(i)
			s := c.slice(i)
			s.Endpoints = append(s.Endpoints, endpointSlice("", "", backendAddr(i, 3, 0)).Endpoints...)
			return c.update(ctx, s)
		}},
		{name: "endpoint removed", undoes: true, make: func(ctx context.Context, c *cluster, i int) error {
			return c.update(ctx, c.slice(c.spread(i)))
		}},
		{name: "Service created", prepare: func(ctx context.Context, c *cluster, i int) error {
			addrs := []netip.Addr{backendAddr(i, 4, 0), backendAddr(i, 5, 0), backendAddr(i, 6, 0)}
			return c.createSlice(ctx, temporary(endpointSlice(newName(i), newName(i), addrs...)))
		}, make: func(ctx context.Context, c *cluster, i int) error {
			return c.put(ctx, temporary(newService(newName(i), newAddr(i))))
		}},
		{name: "Service deleted", undoes: true, make: func(ctx context.Context, c *cluster, i int) error {
			return c.client.CoreV1().Services(namespace).Delete(ctx, newName(i), metav1.DeleteOptions{})
		}, finish: func(ctx context.Context, c *cluster, i int) error {
			slices := c.client.DiscoveryV1().EndpointSlices(namespace)
			return slices.Delete(ctx, newName(i), metav1.DeleteOptions{})
		}},
	}
}

// changesOf measures every kind of change.
func (b *bench) changesOf(ctx context.Context, n *node) error {
	done := 0
	for _, kind := range changeKinds() {
		least, most := fewest, b.options.changes
		if kind.undoes {
			least, most = done, done
		}
		var err error
		if done, err = b.series(ctx, n, kind, least, most); err != nil {
			return fmt.Errorf("%s: %w", kind.name, err)
		}
	}
	return nil
}

const (
	// changeLimit limits the time to program a change.
	changeLimit = 2 * time.Minute
	// A series of changes ends after seriesTime and the fewest changes, or after patience.
	seriesTime = 4 * time.Second
	fewest     = 5
	patience   = time.Minute
	// shortPause is the minimum pause after a change.
	shortPause = 50 * time.Millisecond
)

// series makes changes of a kind, one at a time. It measures the time of each from the call of the API client
// to the commit, and the CPU time of the proxy until it is idle again, minus that of an idle proxy. It
// returns the number of changes: as many as possible within seriesTime, between least and most.
func (b *bench) series(ctx context.Context, n *node, kind change, least, most int) (int, error) {
	m := meter{idle: idleCPU(ctx, n.proxy.pid, time.Second)}
	heap, allocates := n.allocations()
	start := time.Now()
	more := func() bool {
		spent := time.Since(start)
		switch {
		case m.count() >= min(most, b.cluster.services):
			return false
		case m.count() < least:
			return spent < patience || kind.undoes || m.count() == 0
		}
		return spent < seriesTime
	}
	for more() {
		if err := b.once(ctx, n, kind, &m); err != nil {
			return 0, fmt.Errorf("change %d: %w", m.count(), err)
		}
	}
	b.putChanges(n, kind.name, &m)
	if after, ok := n.allocations(); ok && allocates {
		each := after.minus(heap).over(m.count())
		b.put(n, kind.name+": heap allocations", "", each.objects)
		b.put(n, kind.name+": heap allocated", "kB", each.bytes/1e3)
	}
	return m.count(), nil
}

// meter adds up the costs of changes.
type meter struct {
	took    []time.Duration
	spent   cpuTime
	workers time.Duration // CPU time of kernel workers
	bytes   int64         // from the API server
	idle    float64       // share of a CPU of the idle proxy
}

func (m *meter) count() int { return len(m.took) }

// once makes the next change.
func (b *bench) once(ctx context.Context, n *node, kind change, m *meter) error {
	i := m.count()
	if kind.prepare != nil {
		if err := errors.Join(kind.prepare(ctx, b.cluster, i), n.settle(ctx, shortPause)); err != nil {
			return err
		}
	}
	cpu, worker, received, start := cpuOf(n.proxy.pid), workerTime(), n.relay.received.Load(), time.Now()
	took, err := n.measure(ctx, func() error { return kind.make(ctx, b.cluster, i) })
	if err != nil {
		return err
	}
	m.took, n.took = append(m.took, took), took
	if err := n.settle(ctx, shortPause); err != nil {
		return err
	}
	used := cpuOf(n.proxy.pid).minus(cpu)
	used.total -= time.Duration(m.idle * float64(time.Since(start)))
	m.spent = m.spent.plus(used)
	m.workers += workerTime().since(worker)
	m.bytes += n.relay.received.Load() - received
	if kind.finish != nil {
		return errors.Join(kind.finish(ctx, b.cluster, i), n.settle(ctx, shortPause))
	}
	return nil
}

func (b *bench) putChanges(n *node, name string, m *meter) {
	values, each := durations(m.took, milliseconds), float64(m.count())
	b.put(n, name+": p50", "ms", quantile(values, 0.5))
	b.put(n, name+": p99", "ms", quantile(values, 0.99))
	b.put(n, name+": CPU", "ms", milliseconds(m.spent.total)/each)
	b.put(n, name+": CPU, user", "ms", milliseconds(m.spent.user)/each)
	b.put(n, name+": CPU, system", "ms", milliseconds(m.spent.system)/each)
	b.put(n, name+": CPU, kernel workers", "ms", milliseconds(m.workers)/each)
	b.put(n, name+": bytes from the API server", "kB", float64(m.bytes)/1e3/each)
}

// measure returns the time from the call of write to the next commit.
func (n *node) measure(ctx context.Context, write func() error) (time.Duration, error) {
	if err := n.proxy.alive(); err != nil {
		return 0, err
	}
	old, err := n.gen.now()
	if err != nil {
		return 0, err
	}
	begun, wrote := make(chan time.Time, 1), make(chan error, 1)
	go func() {
		begun <- time.Now()
		wrote <- write()
	}()
	at, _, err := n.gen.await(ctx, old, changeLimit)
	if werr := <-wrote; werr != nil {
		return 0, werr
	}
	return at.Sub(<-begun), err
}
