package main

import (
	"context"
	"fmt"
	"time"
)

// control measures the control plane at the current number of Services: each contender in turn, and again in
// every round, starting with another one.
func (b *bench) control(ctx context.Context, last bool) error {
	for round := range b.rounds {
		for i := range b.contenders {
			who := b.contenders[(i+round)%len(b.contenders)]
			b.say("%d services, round %d: %s", b.cluster.services, round+1, who.name)
			if err := b.controlOf(ctx, who, last); err != nil {
				return fmt.Errorf("%s, %d services: %w", who.name, b.cluster.services, err)
			}
		}
	}
	return nil
}

func (b *bench) controlOf(ctx context.Context, who contender, last bool) error {
	n, err := newNode(who, b.cluster, b.dir)
	if err != nil {
		return err
	}
	defer n.close()
	if who.name == "floor" {
		return b.floorOf(ctx, n)
	}
	took, err := b.startOf(ctx, n)
	if err != nil {
		return err
	}
	if err := b.profile(n, "start", false); err != nil {
		return err
	}
	profiled := make(chan error, 1)
	go func() { profiled <- b.profile(n, "changes", true) }()
	if err := b.changesOf(ctx, n); err != nil {
		return err
	}
	if err := <-profiled; err != nil {
		return err
	}
	if b.measures("load") && last {
		if err := b.loadOf(ctx, n); err != nil {
			return err
		}
	}
	return b.restartOf(ctx, n, max(5*time.Second, took))
}

// floorOf measures what takes no proxy.
func (b *bench) floorOf(ctx context.Context, n *node) error {
	took, err := bareBatch(b.cluster.services)
	if err != nil {
		return err
	}
	b.put(n, "first sync", "ms", milliseconds(took))
	if _, err := n.start(ctx); err != nil {
		return err
	}
	return b.series(ctx, n, replaceEndpoint(), b.options.changes)
}

// startOf measures a start on a node where nothing is programmed.
func (b *bench) startOf(ctx context.Context, n *node) (time.Duration, error) {
	p, err := n.start(ctx, func() {
		if err := b.profile(n, "start", true); err != nil {
			b.say("%s: %v", n.who.name, err)
		}
	})
	if err != nil {
		return 0, err
	}
	cpu := cpuOf(n.proxy.pid)
	b.put(n, "start to programmed", "ms", milliseconds(p.took))
	if took, ok := n.firstSync(); ok {
		b.put(n, "first sync", "ms", took)
	}
	b.put(n, "start: transactions", "", float64(p.commits))
	b.put(n, "start: CPU", "ms", milliseconds(cpu.total))
	b.put(n, "start: bytes from the API server", "MB", float64(n.relay.received.Load())/1e6)
	idle := sleepCPU(n.proxy.pid, 5*time.Second)
	m := memoryOf(n.proxy.pid)
	b.put(n, "memory: resident", "MB", m.resident/1e6)
	b.put(n, "memory: anonymous", "MB", m.anonymous/1e6)
	b.put(n, "memory: peak", "MB", m.peak/1e6)
	b.put(n, "idle: CPU", "ms/s", 1000*idle)
	return p.took, ctx.Err()
}

// sleepCPU returns the share of a CPU that a process takes while nothing happens.
func sleepCPU(pid int, d time.Duration) float64 {
	before, start := cpuOf(pid), time.Now()
	time.Sleep(d)
	return cpuOf(pid).minus(before).total.Seconds() / time.Since(start).Seconds()
}

// restartOf measures what is written when the proxy starts where all is programmed, and, in another restart, when
// it has found and programmed what changed while it was away.
func (b *bench) restartOf(ctx context.Context, n *node, patience time.Duration) error {
	n.proxy.stop()
	before, err := n.gen.now()
	if err != nil {
		return err
	}
	if _, err := n.start(ctx); err != nil {
		return err
	}
	time.Sleep(patience)
	after, err := n.gen.now()
	if err != nil {
		return err
	}
	b.put(n, "restart: transactions", "", float64(after-before))
	n.proxy.stop()
	if err := b.cluster.update(ctx, b.cluster.replaced(0)); err != nil {
		return err
	}
	if before, err = n.gen.now(); err != nil {
		return err
	}
	if n.proxy, err = startProcess(n.lab.Node(), n.proxy.log, n.who.args(n)); err != nil {
		return err
	}
	first, gen, err := n.gen.await(before, programLimit)
	if err != nil {
		return err
	}
	moved, _, err := n.gen.quiet(first, gen, max(stillness, patience), programLimit)
	b.put(n, "restart to programmed", "ms", milliseconds(moved.Sub(n.proxy.begun)))
	return err
}
