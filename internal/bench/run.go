package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"
)

// bench is one run.
type bench struct {
	options
	record
	cluster    *cluster
	contenders []contender
	dir        string          // for logs and data
	failed     map[string]bool // names of contenders
	part       string          // the current part
}

// run measures all selected parts. After an error it still writes the results up to then.
func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return err
	}
	b := &bench{options: o, dir: dir, failed: map[string]bool{}}
	defer func() {
		if err == nil && len(b.failures) == 0 {
			_ = os.RemoveAll(dir)
		} else {
			b.say("the logs are in %s", dir)
		}
	}()
	b.say("starting a control plane")
	if b.cluster, err = newCluster(ctx, dir); err != nil {
		return err
	}
	defer b.cluster.close()
	if b.contenders, err = contenders(o, dir, b.cluster); err != nil {
		return err
	}
	r := newReport(o, b.contenders)
	err = b.measure(ctx, r)
	if serr := b.save(r); serr != nil && err == nil {
		err = serr
	}
	r.print(os.Stdout)
	if perr := plots(&b.record, o.out); perr != nil && err == nil {
		err = perr
	}
	return err
}

// save writes the results up to now.
func (b *bench) save(r *report) error {
	r.Figures, r.Failures = b.figures, b.failures
	return r.write(b.out)
}

// measure measures with increasing numbers of Services. It saves after each of them, because a run can take
// an hour.
func (b *bench) measure(ctx context.Context, r *report) error {
	for _, size := range b.steps() {
		b.say("creating %d services", size)
		if err := b.cluster.grow(ctx, size); err != nil {
			return err
		}
		if b.measures("control") && slices.Contains(b.counts, size) {
			if err := b.control(ctx); err != nil {
				return err
			}
		}
		if services, _, _ := b.stickyCounts(); b.measures("sticky") && size == services {
			if err := b.sticky(ctx); err != nil {
				return err
			}
		}
		if b.measures("data") && slices.Contains(b.dataCounts, size) {
			if err := b.dataPath(ctx); err != nil {
				return err
			}
		}
		if b.measures("watchers") && size == b.watched() {
			if err := b.watchers(ctx); err != nil {
				return err
			}
		}
		if err := b.save(r); err != nil {
			return err
		}
	}
	return nil
}

// steps returns the numbers of Services of the selected parts.
func (b *bench) steps() []int {
	var steps []int
	if b.measures("control") || b.measures("watchers") {
		steps = append(steps, b.counts...)
	}
	if b.measures("sticky") {
		services, _, _ := b.stickyCounts()
		steps = append(steps, services)
	}
	if b.measures("data") {
		steps = append(steps, b.dataCounts...)
	}
	slices.Sort(steps)
	return slices.Compact(steps)
}

// put records a value for the current number of Services.
func (b *bench) put(n *node, name, unit string, value float64) {
	b.note(b.part, name, unit, b.cluster.services, n.who.name, value)
}

// fail records an error and excludes the contender from further measurements.
func (b *bench) fail(who contender, err error) {
	b.failed[who.name] = true
	b.failures = append(b.failures, fmt.Sprintf("%s, %d services: %v", who.name, b.cluster.services, err))
	b.say("%s", b.failures[len(b.failures)-1])
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s "+format+"\n", append([]any{time.Now().Format("15:04:05")}, args...)...)
}
