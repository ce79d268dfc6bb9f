package source

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// limits bound the silence of an API server. Those of HTTP/2 and TCP notice a machine that is gone or an API
// server that is stopped, but not one that hangs behind a load balancer, or answers pings only.
type limits struct {
	answer  time.Duration // from the connection to the first byte of an answer, and within answers
	silence time.Duration // within a watch
	resume  time.Duration // a watch that was interrupted for longer does not resume
	start   time.Duration // until it is reported that there are no Services or EndpointSlices
}

// defaultLimits returns the limits for a real API server. When it is overloaded, it keeps a request waiting
// for up to 15 s, a quarter of its request timeout, and then answers with an error (API Priority and
// Fairness). A watch gets a bookmark about every minute, but this is not guaranteed.
func defaultLimits() limits {
	return limits{
		answer: 30 * time.Second, silence: 3 * time.Minute, resume: 5 * time.Minute, start: 15 * time.Second,
	}
}

// dialTimeout limits the time for the TCP connection to an API server. It is enough for three retransmissions
// of a SYN (after 1 s, 3 s and 7 s: RFC 6298). With client-go's own 30 s a node waits for longer when its
// network is back.
const dialTimeout = 10 * time.Second

// exchange is a request of an informer and its answer. The request's context has it.
type exchange struct {
	watch bool
	heard func()           // called when a part of an answer that is no error has arrived
	lost  func(error)      // called when the connection of a watch breaks
	left  func(largeEvent) // called for each event that is too large
	err   error            // why there is no answer
}

// context returns a context for the request.
func (x *exchange) context(ctx context.Context) context.Context {
	return context.WithValue(ctx, exchangeKey{}, x)
}

// exchangeKey is the key of an exchange in a context.
type exchangeKey struct{}

// transport makes requests fail, and ends watches, when the API server is silent.
type transport struct {
	limits    limits
	next      http.RoundTripper
	reconnect func() // closes all connections
}

func (t transport) RoundTrip(req *http.Request) (*http.Response, error) {
	x, ok := req.Context().Value(exchangeKey{}).(*exchange)
	if !ok {
		x = &exchange{heard: func() {}, lost: func(error) {}}
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	timer := time.AfterFunc(t.limits.answer, func() {
		cancel(fmt.Errorf("no answer within %v", t.limits.answer))
		// All requests share a connection of HTTP/2. Another one may lead to another API server.
		t.reconnect()
	})
	timer.Stop() // the transport below limits the time until there is a connection, with errors that say more
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { timer.Reset(t.limits.answer) }}
	resp, err := t.next.RoundTrip(req.WithContext(httptrace.WithClientTrace(ctx, trace)))
	timer.Stop()
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		cancel(nil)
		x.err = err
		return nil, err
	}
	body := &body{ReadCloser: resp.Body, exchange: x, ctx: ctx, cancel: cancel, limit: t.limits.answer}
	if x.watch {
		body.limit = t.limits.silence
	}
	body.timer = time.AfterFunc(body.limit, body.giveUp)
	if body.success = resp.StatusCode == http.StatusOK; body.success {
		x.heard()
	}
	resp.Body = body
	return resp, nil
}

// body is the body of an answer.
type body struct {
	io.ReadCloser
	*exchange
	success bool // the answer is not an error
	ctx     context.Context
	cancel  context.CancelCauseFunc
	limit   time.Duration
	timer   *time.Timer // calls giveUp when nothing arrives within limit
}

func (b *body) giveUp() { b.cancel(fmt.Errorf("nothing received for %v", b.limit)) }

// Read reads. A watch that fails just ends, as when the API server ends it, so that the reflector resumes it
// and does not list. Its silence is no outage yet: the API server may answer the next request.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.timer.Reset(b.limit)
		if b.success {
			b.heard()
		}
	}
	ended := b.ctx.Err() != nil // by us: stopped or silent
	switch {
	case err == nil, err == io.EOF:
		return n, err
	case !b.watch && ended:
		return n, context.Cause(b.ctx)
	case !b.watch:
		return n, err
	case !ended && !utilnet.IsProbableEOF(err):
		b.lost(err)
	}
	return n, io.EOF
}

func (b *body) Close() error {
	b.timer.Stop()
	b.cancel(nil)
	return b.ReadCloser.Close()
}
