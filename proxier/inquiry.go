package proxier

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier/explain"
	"github.com/nftproxy/nftproxy/proxier/host"
	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/proxier/socket"
)

// socketRetry is when to try again to listen for commands: the nftproxy before this one may not have ended.
const socketRetry = time.Second

// answerCommands answers the commands of nftproxy on this node until ctx ends. Without that everything else
// works.
func (p *Proxier) answerCommands(ctx context.Context) {
	mux := http.NewServeMux()
	mux.Handle("POST "+explain.Path, explain.Handler(p.explain))
	mux.Handle("GET /", p.supportPages())
	for failed := false; ctx.Err() == nil; failed = true {
		err := socket.Serve(ctx, socket.Name, mux)
		if err != nil && !failed {
			klog.InfoS("Failed to listen for nftproxy explain and support-bundle, retrying", "err", err)
		}
		pause(ctx, socketRetry)
	}
}

// explain answers a question. The reconciler's goroutine only collects what the answer needs; the kernel is
// read through a connection of its own.
func (p *Proxier) explain(ctx context.Context, q explain.Question) (*explain.Report, error) {
	addrs, err := host.Addrs()
	if err != nil {
		return nil, err
	}
	var wanted *explain.Wanted
	if err := p.ask(ctx, func(r *reconciler) error {
		wanted, err = explain.Collect(r.builder, addrs, q)
		if err == nil {
			wanted.Sync = &explain.Sync{At: r.lastSync, Err: r.lastError}
			wanted.Sync.Heard, wanted.Sync.Unheard = p.objectsHeard()
		}
		return err
	}); err != nil {
		return nil, err
	}
	conn, err := kernel.Dial(kernel.Options{})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	inquiry := kernel.NewInquiry(conn, wanted.Environment.Config)
	wanted.Traffic = explain.NewTraffic(ctx, inquiry.Counted)
	wanted.Host = explain.ReadHost(wanted.Environment.Config.MasqueradeMark)
	return explain.Explain(wanted, q, inquiry)
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

// ask runs f in the reconciler's goroutine, between syncs, once there is a ruleset. Until then, or if a sync
// takes longer than ctx, the error is socket.ErrNoDaemon.
func (p *Proxier) ask(ctx context.Context, f func(*reconciler) error) (err error) {
	done := make(chan struct{})
	ask := func(r *reconciler) {
		defer close(done)
		if r.builder.Ruleset() == nil {
			err = fmt.Errorf("%w: nothing is programmed yet: the source of objects has not delivered all of "+
				"them, or the first sync has not begun", socket.ErrNoDaemon)
			return
		}
		err = f(r)
	}
	select {
	case p.asked <- ask:
		<-done
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: it is busy with a sync: %w", socket.ErrNoDaemon, ctx.Err())
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
