package main

import (
	"context"
	"errors"
	"time"
)

// control measures the control plane at the current number of Services. Each round measures all contenders
// and starts with another one. It excludes a contender after a failure.
func (b *bench) control(ctx context.Context) error {
	b.part = "control"
	for round := range b.rounds {
		for i := range b.contenders {
			who := b.contenders[(i+round)%len(b.contenders)]
			if !who.fits(b.cluster.services) || b.failed[who.name] {
				continue
			}
			b.say("%d services, round %d: %s", b.cluster.services, round+1, who.name)
			err := b.controlOf(ctx, who, round == 0)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err == nil {
				continue
			}
			b.fail(who, err)
			if err := b.cluster.restore(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// controlOf measures a contender once.
func (b *bench) controlOf(ctx context.Context, who contender, first bool) error {
	n, err := newNode(who, b.cluster, b.dir)
	if err != nil {
		return err
	}
	defer n.close()
	took, err := b.startOf(ctx, n)
	if err != nil {
		return err
	}
	profiled := make(chan error, 1)
	go func() { profiled <- errors.Join(b.profile(n, "start", false), b.profile(n, "changes", true)) }()
	if err := errors.Join(b.changesOf(ctx, n), <-profiled); err != nil {
		return err
	}
	b.put(n, "memory: resident after changes", "MB", memoryOf(n.proxy.pid).resident/1e6)
	if first && b.cluster.services <= loadServices {
		if err := b.netlinkOf(ctx, n); err != nil {
			return err
		}
	}
	if b.measures("load") && b.cluster.services == b.loaded() {
		if err := b.loadOf(ctx, n); err != nil {
			return err
		}
	}
	return b.restartOf(ctx, n, max(3*time.Second, 2*took))
}

// After a start, startOf waits for afterStart and then measures the idle proxy for idleTime.
const afterStart, idleTime = 2 * time.Second, 4 * time.Second

// startOf measures a start on a node without rules.
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
	sleep(ctx, afterStart)
	idle := idleCPU(ctx, n.proxy.pid, idleTime)
	m := memoryOf(n.proxy.pid)
	b.put(n, "memory: resident", "MB", m.resident/1e6)
	b.put(n, "memory: anonymous", "MB", m.anonymous/1e6)
	b.put(n, "memory: peak", "MB", m.peak/1e6)
	b.put(n, "idle: CPU", "ms/s", 1000*idle)
	return p.took, ctx.Err()
}

// idleCPU returns the share of a CPU that an idle process uses.
func idleCPU(ctx context.Context, pid int, d time.Duration) float64 {
	before, start := cpuOf(pid), time.Now()
	sleep(ctx, d)
	return cpuOf(pid).minus(before).total.Seconds() / time.Since(start).Seconds()
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// restartOf measures the transactions of a restart without changes, and the time until a restarted proxy has
// programmed a change from its downtime.
func (b *bench) restartOf(ctx context.Context, n *node, wait time.Duration) error {
	n.proxy.stop()
	before, err := n.gen.now()
	if err != nil {
		return err
	}
	if _, err := n.start(ctx); err != nil {
		return err
	}
	sleep(ctx, wait)
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
	if err = n.launch(); err != nil {
		return err
	}
	first, gen, err := n.gen.await(ctx, before, programLimit)
	if err != nil {
		return err
	}
	moved, _, err := n.gen.quiet(ctx, first, gen, n.rest(3*stillness), programLimit)
	b.put(n, "restart to programmed", "ms", milliseconds(moved.Sub(n.proxy.begun)))
	return err
}
