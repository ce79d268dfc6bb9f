package health

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"
)

// A Server that cannot have its address tries again after firstRetry, then after twice
// the time before, up to kube-proxy's lastRetry.
const (
	firstRetry = 500 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// Server serves the health address or the metrics address.
type Server struct {
	Name    string // what it serves, for errors
	Addr    string // host:port as kube-proxy's configuration has it; a host of 0.0.0.0, ::, or none is all addresses of both families
	Handler http.Handler
	// HardFail ends Run at the first error, as bindAddressHardFail demands. Otherwise
	// Failed, if set, is told of the error and Run tries again.
	HardFail bool
	Failed   func(error)
}

// Run serves until ctx is done, then returns nil once the requests under way are
// answered or closeTimeout has passed. Only with HardFail does it return an error.
func (s *Server) Run(ctx context.Context) error {
	for retry := firstRetry; ; retry = min(2*retry, lastRetry) {
		err := s.serve(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if s.HardFail {
			return err
		}
		if s.Failed != nil {
			s.Failed(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retry):
		}
	}
}

// serve returns why it cannot listen or go on serving, or when ctx is done.
func (s *Server) serve(ctx context.Context) error {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", s.Addr)
	if err != nil {
		return fmt.Errorf("serve %s: %w", s.Name, err)
	}
	server := newHTTPServer(s.Handler)
	drained := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(drained)
		shutDown(server)
	})
	err = server.Serve(l)
	if stop() {
		_ = server.Close()
	} else {
		<-drained
	}
	return fmt.Errorf("serve %s on %s: %w", s.Name, s.Addr, err)
}
