package localhost

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/nftproxy/nftproxy/rules/service"
)

const (
	// maxConnections bounds the open connections of one nodePort. Each takes up to six file descriptors, and
	// the daemon needs some for itself. Further clients wait in the queue of the listener.
	maxConnections = 1000
	// acceptPause is the pause after an error of accept: there are no file descriptors or no memory.
	acceptPause = 100 * time.Millisecond
)

// listener accepts the connections of one nodePort.
type listener struct {
	*net.TCPListener
	choice  choice
	failed  func(error)
	slots   chan struct{} // one for each open connection
	stopped chan struct{}
}

// stop frees the address at once. Open connections continue.
func (l *listener) stop() {
	close(l.stopped)
	_ = l.Close()
}

// serve accepts connections until stop is called, and relays each until it ends or ctx does.
func (l *listener) serve(ctx context.Context, connections *sync.WaitGroup) {
	for {
		select {
		case l.slots <- struct{}{}:
		case <-l.stopped:
			return
		}
		conn, err := l.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			l.failed(fmt.Errorf("accept connection on %s: %w", l.Addr(), err))
			<-l.slots
			time.Sleep(acceptPause)
			continue
		}
		connections.Go(func() {
			defer func() { <-l.slots }()
			if err := relay(ctx, conn, l.choice.pick(time.Now())); err != nil && ctx.Err() == nil {
				l.failed(fmt.Errorf("relay connection on %s: %w", l.Addr(), err))
			}
		})
	}
}

// choice chooses the endpoint of each connection: any, or with session affinity the one of the connection
// before. All clients on loopback have the same address, so they share one endpoint.
type choice struct {
	mu      sync.Mutex
	port    NodePort
	pinned  service.Backend
	expires time.Time
}

func (c *choice) set(port NodePort) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.port.Affinity != port.Affinity {
		c.pinned = service.Backend{}
	}
	c.port = port
}

// pick returns the endpoint of a connection that begins now. Each connection extends the affinity.
func (c *choice) pick(now time.Time) service.Backend {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.port.Affinity == 0 || now.After(c.expires) || !slices.Contains(c.port.Backends, c.pinned) {
		c.pinned = c.port.Backends[rand.IntN(len(c.port.Backends))]
	}
	c.expires = now.Add(c.port.Affinity)
	return c.pinned
}
