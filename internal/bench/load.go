package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// loadServices is the maximum number of Services for the part load.
const loadServices = 10_000

// loadTime is the time for Services with many endpoints after which loadOf skips larger ones.
const loadTime = time.Minute

// loaded returns the number of Services for the part load.
func (b *bench) loaded() int { return b.atMost(loadServices) }

// atMost returns the largest size up to a limit, or the smallest size.
func (b *bench) atMost(limit int) int {
	size := b.counts[0]
	for _, n := range b.counts {
		if n <= limit {
			size = n
		}
	}
	return size
}

// loadOf measures many changes at once, and Services with many endpoints.
func (b *bench) loadOf(ctx context.Context, n *node) error {
	b.part = "load"
	defer func() { b.part = "control" }()
	if err := b.burst(ctx, n, min(1000, b.cluster.services)); err != nil {
		return fmt.Errorf("burst: %w", err)
	}
	sizes := []int{1000, 10_000}
	if b.quick {
		sizes = sizes[:1]
	}
	start := time.Now()
	for _, endpoints := range sizes {
		if spent := time.Since(start); spent > loadTime {
			b.failures = append(b.failures, fmt.Sprintf(
				"%s: skipped a Service with %d endpoints, because smaller ones took %v",
				n.who.name, endpoints, spent.Round(time.Second)))
			break
		}
		if err := b.large(ctx, n, endpoints); err != nil {
			return fmt.Errorf("a Service with %d endpoints: %w", endpoints, err)
		}
	}
	return nil
}

// total measures the changes that f writes, until their last commit.
func (b *bench) total(ctx context.Context, n *node, name string, f func() error) error {
	before, err := n.gen.now()
	if err != nil {
		return err
	}
	cpu, start, wrote := cpuOf(n.proxy.pid), time.Now(), make(chan time.Time, 1)
	failed := make(chan error, 1)
	go func() {
		err := f()
		wrote <- time.Now()
		failed <- err
	}()
	moved, gen, err := start, before, error(nil)
	for done := false; !done; { // until the writes have ended and all of them are committed
		done = len(wrote) > 0
		if moved, gen, err = n.gen.quiet(ctx, moved, gen, n.rest(2*stillness), programLimit); err != nil {
			return err
		}
	}
	if err := <-failed; err != nil {
		return err
	}
	used := cpuOf(n.proxy.pid).minus(cpu)
	b.put(n, name+": first write to last commit", "ms", milliseconds(moved.Sub(start)))
	b.put(n, name+": last write to last commit", "ms", max(0, milliseconds(moved.Sub(<-wrote))))
	b.put(n, name+": transactions", "", float64(gen-before))
	b.put(n, name+": CPU", "ms", milliseconds(used.total))
	return ctx.Err()
}

// burst replaces an endpoint of each of many Services as fast as the API server accepts it.
func (b *bench) burst(ctx context.Context, n *node, count int) error {
	var list []*discoveryv1.EndpointSlice
	for i := range count {
		list = append(list, b.cluster.replaced(b.cluster.spread(i)))
	}
	return b.total(ctx, n, fmt.Sprintf("burst of %d", count), func() error {
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(writers)
		for _, s := range list {
			group.Go(func() error { return b.cluster.update(ctx, s) })
		}
		return group.Wait()
	})
}

const perSlice = 100 // endpoints, the default of the EndpointSlice controller

// largeSlice returns a part of the endpoints of the large Service. The first replaced of them are of the next
// version.
func largeSlice(part, version, replaced int) *discoveryv1.EndpointSlice {
	addrs := make([]netip.Addr, perSlice)
	for i := range addrs {
		v := version
		if i < replaced {
			v++
		}
		at := part*perSlice + i
		addrs[i] = netip.AddrFrom4([4]byte{10, byte(180 + v%40), byte(at >> 8), byte(at)})
	}
	return temporary(endpointSlice("large", fmt.Sprintf("large-%d", part), addrs...))
}

// large measures a Service with many endpoints: its creation, the replacement of one endpoint and, up to 1000
// endpoints, a rolling update.
func (b *bench) large(ctx context.Context, n *node, endpoints int) error {
	name, parts := fmt.Sprintf("%d endpoints", endpoints), endpoints/perSlice
	var list []*discoveryv1.EndpointSlice
	for part := range parts {
		list = append(list, largeSlice(part, 0, 0))
	}
	err := b.total(ctx, n, name+", Service created", func() error {
		return b.cluster.put(ctx, temporary(newService("large", netip.MustParseAddr("10.96.0.20"))), list...)
	})
	if err != nil {
		return err
	}
	one := change{name: name + ", one replaced", make: func(ctx context.Context, c *cluster, i int) error {
		return c.update(ctx, largeSlice(i%parts, 0, 1+(i/parts)%(perSlice-1)))
	}}
	if _, err := b.series(ctx, n, one, fewest, max(fewest, b.options.changes/5)); err != nil {
		return err
	}
	if endpoints <= 1000 {
		if err := b.rolling(ctx, n, parts); err != nil {
			return err
		}
	}
	if err := b.cluster.drop(ctx, "large"); err != nil {
		return err
	}
	return n.settle(ctx, stillness)
}

// rolling replaces all pods of the large Service, 25 at a time, ten times a second.
func (b *bench) rolling(ctx context.Context, n *node, parts int) error {
	const step, pause = 25, 100 * time.Millisecond
	return b.total(ctx, n, fmt.Sprintf("rolling update of %d pods", parts*perSlice), func() error {
		for at := step; at <= parts*perSlice; at += step {
			part, replaced := (at-1)/perSlice, (at-1)%perSlice+1
			if err := b.cluster.update(ctx, largeSlice(part, 1, replaced)); err != nil {
				return err
			}
			time.Sleep(pause)
		}
		return nil
	})
}
