package localhost

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/nftproxy/nftproxy/rules/service"
)

// NodePort is what one address and port of a Proxy serves.
type NodePort struct {
	Service  service.Name
	Backends []service.Backend
	Affinity time.Duration // of sessionAffinity ClientIP; 0: None
}

// ListenError reports that a nodePort is not served on one address.
type ListenError struct {
	Service service.Name
	Addr    netip.AddrPort
	Err     error
}

// Error returns the Service, the address and the system's error.
func (e *ListenError) Error() string {
	return fmt.Sprintf("nodePort of service %s on %s: %v", e.Service, e.Addr, e.Err)
}

// Unwrap returns the system's error.
func (e *ListenError) Unwrap() error { return e.Err }

// Proxy serves nodePorts on loopback addresses. Its methods are for one goroutine.
type Proxy struct {
	failed func(error)
	wanted map[netip.AddrPort]NodePort
	open   map[netip.AddrPort]*listener

	ctx    context.Context // of connections
	cancel context.CancelFunc
	serve  sync.WaitGroup
}

// NewProxy returns a Proxy without nodePorts. It calls failed, from any goroutine, when it cannot accept or
// relay a connection.
func NewProxy(failed func(error)) *Proxy {
	p := &Proxy{failed: failed, open: map[netip.AddrPort]*listener{}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// Sync serves these nodePorts and no others, and keeps the map. It returns the errors of listeners that could
// not be opened, in the order of addresses; the next Sync or Retry tries them again.
func (p *Proxy) Sync(ports map[netip.AddrPort]NodePort) []*ListenError {
	p.wanted = maps.Clone(ports)
	maps.DeleteFunc(p.wanted, func(_ netip.AddrPort, n NodePort) bool { return len(n.Backends) == 0 })
	for at, l := range p.open {
		if port, ok := p.wanted[at]; ok {
			l.choice.set(port)
		} else {
			l.stop()
			delete(p.open, at)
		}
	}
	return p.Retry()
}

// Retry tries again to open the listeners that the last Sync or Retry could not open, and returns the errors.
func (p *Proxy) Retry() []*ListenError {
	if len(p.open) == len(p.wanted) {
		return nil // open is always a subset of wanted here
	}
	var errs []*ListenError
	for _, at := range slices.SortedFunc(maps.Keys(p.wanted), netip.AddrPort.Compare) {
		if p.open[at] != nil {
			continue
		}
		l, err := p.listen(at)
		if err != nil {
			errs = append(errs, &ListenError{Service: p.wanted[at].Service, Addr: at, Err: err})
			continue
		}
		p.open[at] = l
	}
	return errs
}

// listen opens one address and serves it.
func (p *Proxy) listen(at netip.AddrPort) (*listener, error) {
	var config net.ListenConfig
	config.SetMultipathTCP(false) // Go listens for multipath TCP by default, which loopback has no use for
	tcp, err := config.Listen(p.ctx, "tcp", at.String())
	if err != nil {
		return nil, err
	}
	l := &listener{TCPListener: tcp.(*net.TCPListener), failed: p.failed,
		slots: make(chan struct{}, maxConnections), stopped: make(chan struct{})}
	l.choice.set(p.wanted[at])
	p.serve.Go(func() { l.serve(p.ctx, &p.serve) })
	return l, nil
}

// Listeners returns the number of open listeners in a family.
func (p *Proxy) Listeners(f service.Family) int {
	n := 0
	for at := range p.open {
		if service.FamilyOf(at.Addr()) == f {
			n++
		}
	}
	return n
}

// Close ends all listeners and connections. It returns when none is left.
func (p *Proxy) Close() {
	p.Sync(nil)
	p.cancel()
	p.serve.Wait()
}
