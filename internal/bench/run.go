package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

// bench is one run.
type bench struct {
	options
	record
	cluster    *cluster
	contenders []contender
	dir        string // for logs and data
}

// run measures everything that is asked for. What was measured before an error is written all the same.
func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return err
	}
	b := &bench{options: o, dir: dir}
	defer func() {
		if err == nil {
			_ = os.RemoveAll(dir)
		} else {
			err = fmt.Errorf("%w; logs are in %s", err, dir)
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
	err = b.measure(ctx)
	r.Figures = b.figures
	r.print(os.Stdout)
	if werr := r.write(o.out); werr != nil && err == nil {
		err = werr
	}
	if perr := plots(&b.record, o.out); perr != nil && err == nil {
		err = perr
	}
	return err
}

func (b *bench) measure(ctx context.Context) error {
	for i, size := range b.counts {
		b.say("creating %d services", size)
		if err := b.cluster.grow(ctx, size); err != nil {
			return err
		}
		last := i == len(b.counts)-1
		if b.measures("control") {
			if err := b.control(ctx, last); err != nil {
				return err
			}
		}
		if b.measures("data") && (i == 0 || last) {
			if err := b.dataPath(ctx); err != nil {
				return err
			}
		}
		if last && b.measures("watchers") {
			if err := b.watchers(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// put notes a figure of the current size.
func (b *bench) put(n *node, name, unit string, value float64) {
	b.note(name, unit, b.cluster.services, n.who.name, value)
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s "+format+"\n", append([]any{time.Now().Format("15:04:05")}, args...)...)
}
