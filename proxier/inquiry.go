package proxier

import (
	"context"
	"fmt"
	"strings"
	"time"

	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier/explain"
	"github.com/nftproxy/nftproxy/proxier/host"
	"github.com/nftproxy/nftproxy/proxier/kernel"
)

// explainRetry is when to try again to listen for questions: the nftproxy before this one may not have ended.
const explainRetry = time.Second

// serveExplain answers the questions of `nftproxy explain` until ctx ends. Without that everything else works.
func (p *Proxier) serveExplain(ctx context.Context) error {
	for failed := false; ctx.Err() == nil; failed = true {
		err := explain.Serve(ctx, p.explain)
		if err != nil && !failed {
			klog.InfoS("Failed to listen for nftproxy explain, retrying", "err", err)
		}
		pause(ctx, explainRetry)
	}
	return nil
}

// explain answers a question. The reconciler's goroutine only collects what the answer needs; the kernel is
// read through a connection of its own.
func (p *Proxier) explain(ctx context.Context, q explain.Question) (*explain.Report, error) {
	addrs, err := host.Addrs()
	if err != nil {
		return nil, err
	}
	wanted, err := p.collect(ctx, func(r *reconciler) (*explain.Wanted, error) {
		if r.builder.Ruleset() == nil {
			return nil, fmt.Errorf("%w: nothing is programmed yet: the source of objects has not delivered "+
				"all of them, or the first sync has not begun", explain.ErrNoDaemon)
		}
		w, err := explain.Collect(r.builder, addrs, q)
		if err == nil {
			w.Sync = &explain.Sync{At: r.lastSync, Err: r.lastError}
			w.Sync.Heard, w.Sync.Unheard = p.objectsHeard()
		}
		return w, err
	})
	if err != nil {
		return nil, err
	}
	conn, err := kernel.Dial(kernel.Options{})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	wanted.Host = explain.ReadHost(wanted.Environment.Config.MasqueradeMark)
	return explain.Explain(wanted, q, kernel.NewInquiry(conn, wanted.Environment.Config))
}

// objectsHeard returns when the API server was last heard about every resource, and why objects may be out of
// date, if they may be. With a source of manifests both are zero.
func (p *Proxier) objectsHeard() (heard time.Time, unheard string) {
	heard, unheard = p.notes.api()
	if resources, _ := p.notes.silent(silence); unheard == "" && len(resources) > 0 {
		unheard = "nothing has come from the API server about " + strings.Join(resources, ", ")
	}
	return heard, unheard
}

// collect runs a function in the reconciler's goroutine, between syncs.
func (p *Proxier) collect(ctx context.Context, f func(*reconciler) (*explain.Wanted, error)) (
	wanted *explain.Wanted, err error) {
	done := make(chan struct{})
	ask := func(r *reconciler) {
		defer close(done)
		wanted, err = f(r)
	}
	select {
	case p.asked <- ask:
		<-done
		return wanted, err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: it is busy with a sync: %w", explain.ErrNoDaemon, ctx.Err())
	}
}

// rest is pause, with answers to inquiries meanwhile.
func (r *reconciler) rest(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	end := time.After(d)
	for {
		select {
		case <-end:
			return
		case ask := <-r.asked:
			ask(r)
		case <-ctx.Done():
			return
		}
	}
}
