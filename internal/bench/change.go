package main

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// change is something that happens to a Service, and to another one each time.
type change struct {
	name    string
	make    func(ctx context.Context, c *cluster, i int) error
	prepare func(ctx context.Context, c *cluster, i int) error // may be nil; not measured
	finish  func(ctx context.Context, c *cluster, i int) error // may be nil; not measured
}

func replaceEndpoint() change {
	return change{name: "endpoint replaced", make: func(ctx context.Context, c *cluster, i int) error {
		return c.update(ctx, c.replaced(c.spread(i)))
	}}
}

// changesInTurn are all the changes, each of which undoes what one before it did, but for the first.
func changesInTurn() []change {
	newName := func(i int) string { return fmt.Sprintf("new-%d", i) }
	return []change{
		replaceEndpoint(),
		{name: "endpoint added", make: func(ctx context.Context, c *cluster, i int) error {
			i = c.spread(i)
			s := c.slice(i)
			s.Endpoints = append(s.Endpoints, endpointSlice("", "", backendAddr(i, 3, 0)).Endpoints...)
			return c.update(ctx, s)
		}},
		{name: "endpoint removed", make: func(ctx context.Context, c *cluster, i int) error {
			return c.update(ctx, c.slice(c.spread(i)))
		}},
		{name: "Service created", prepare: func(ctx context.Context, c *cluster, i int) error {
			s := endpointSlice(newName(i), newName(i), backendAddr(i, 4, 0), backendAddr(i, 5, 0), backendAddr(i, 6, 0))
			_, err := c.client.DiscoveryV1().EndpointSlices(namespace).Create(ctx, s, metav1.CreateOptions{})
			return err
		}, make: func(ctx context.Context, c *cluster, i int) error {
			return c.put(ctx, service(newName(i), newAddr(i)))
		}},
		{name: "Service deleted", make: func(ctx context.Context, c *cluster, i int) error {
			return c.client.CoreV1().Services(namespace).Delete(ctx, newName(i), metav1.DeleteOptions{})
		}, finish: func(ctx context.Context, c *cluster, i int) error {
			return c.client.DiscoveryV1().EndpointSlices(namespace).Delete(ctx, newName(i), metav1.DeleteOptions{})
		}},
	}
}

// changesOf measures every kind of change.
func (b *bench) changesOf(ctx context.Context, n *node) error {
	for _, kind := range changesInTurn() {
		if err := b.series(ctx, n, kind, b.options.changes); err != nil {
			return fmt.Errorf("%s: %w", kind.name, err)
		}
	}
	return nil
}

// changeLimit is how long a proxy may take to program a change.
const changeLimit = 2 * time.Minute

// series makes changes of a kind, one at a time, and measures how long each takes from the call of the API client to
// the commit, and what CPU the proxy spends until nothing more is to be done, less what it spends when idle.
func (b *bench) series(ctx context.Context, n *node, kind change, count int) error {
	count = min(count, b.cluster.services)
	var took []time.Duration
	var spent cpuTime
	var workers time.Duration
	bytes, idle := int64(0), sleepCPU(n.proxy.pid, time.Second)
	pause := 50 * time.Millisecond
	for i := range count {
		if kind.prepare != nil {
			if err := b.step(ctx, n, kind.prepare, i, pause); err != nil {
				return err
			}
		}
		cpu, worker, received, start := cpuOf(n.proxy.pid), workerTime(), n.relay.received.Load(), time.Now()
		d, err := n.measure(ctx, func() error { return kind.make(ctx, b.cluster, i) })
		if err != nil {
			return fmt.Errorf("change %d: %w", i, err)
		}
		took = append(took, d)
		pause = max(50*time.Millisecond, 2*d)
		if err := n.settle(pause); err != nil {
			return err
		}
		used := cpuOf(n.proxy.pid).minus(cpu)
		rest := time.Duration(idle * float64(time.Since(start)))
		spent = cpuTime{spent.total + used.total - rest, spent.user + used.user, spent.system + used.system}
		workers += workerTime() - worker
		bytes += n.relay.received.Load() - received
		if kind.finish != nil {
			if err := b.step(ctx, n, kind.finish, i, pause); err != nil {
				return err
			}
		}
	}
	values, each := durations(took, milliseconds), float64(count)
	b.put(n, kind.name+": p50", "ms", quantile(values, 0.5))
	b.put(n, kind.name+": p99", "ms", quantile(values, 0.99))
	b.put(n, kind.name+": CPU", "ms", milliseconds(spent.total)/each)
	b.put(n, kind.name+": CPU, user", "ms", milliseconds(spent.user)/each)
	b.put(n, kind.name+": CPU, system", "ms", milliseconds(spent.system)/each)
	b.put(n, kind.name+": CPU, kernel workers", "ms", milliseconds(workers)/each)
	b.put(n, kind.name+": bytes from the API server", "kB", float64(bytes)/1e3/each)
	return nil
}

// step does what belongs to a change but is not measured.
func (b *bench) step(ctx context.Context, n *node, f func(context.Context, *cluster, int) error, i int, pause time.Duration) error {
	if err := f(ctx, b.cluster, i); err != nil {
		return err
	}
	return n.settle(pause)
}

// measure returns how long it takes from the call of write until something is committed.
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
	at, _, err := n.gen.await(old, changeLimit)
	if werr := <-wrote; werr != nil {
		return 0, werr
	}
	if err == nil {
		err = ctx.Err()
	}
	return at.Sub(<-begun), err
}

// settle waits until nothing has been committed for a while.
func (n *node) settle(still time.Duration) error {
	gen, err := n.gen.now()
	if err == nil {
		_, _, err = n.gen.quiet(time.Now(), gen, still, changeLimit)
	}
	return err
}
