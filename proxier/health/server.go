package health

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"
)

// A Server that cannot listen retries after firstRetry, and then at intervals that double up to lastRetry,
// which is kube-proxy's interval.
const (
	firstRetry = 500 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// Server serves the health address or the metrics address.
type Server struct {
	Name string // "healthz" or "metrics", for errors
	// Addr is host:port as in kube-proxy's configuration. The hosts 0.0.0.0, :: and the empty host are all
	// addresses of both families.
	Addr    string
	Handler http.Handler
	// HardFail ends Run at the first error, for bindAddressHardFail. Otherwise Run calls Failed, if it is
	// set, with the error, and retries.
	HardFail bool
	Failed   func(error)
}

// Run serves until ctx ends, and returns nil when the open requests are answered or closeTimeout has passed.
// It returns an error only with HardFail.
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

// serve serves until ctx ends or an error occurs, which it returns.
func (s *Server) serve(ctx context.Context) error {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", s.Addr)
	if err != nil {
		return fmt.Errorf("serve %s: %w", s.Name, err)
	}
	server := newHTTPServer(s.Handler, &connLimit{})
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
