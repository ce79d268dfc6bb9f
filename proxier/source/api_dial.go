package source

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// maxDialed bounds the addresses that a dialer remembers: a name may resolve to others each time.
const maxDialed = 64

// dialer dials as client-go does by default, but gives up earlier, and remembers which addresses it dialed.
// It notes an address before it connects: the connection may never come about because a Service has taken the
// address.
type dialer struct {
	mu      sync.Mutex
	dialed  map[netip.AddrPort]struct{}
	changed func() // nil until somebody asks
}

func (d *dialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	with := net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second,
		ControlContext: func(_ context.Context, _, resolved string, _ syscall.RawConn) error {
			d.note(resolved)
			return nil
		}}
	return with.DialContext(ctx, network, addr)
}

// note remembers an address. When there are too many it forgets the others, which are out of use by then.
func (d *dialer) note(resolved string) {
	addr, err := netip.ParseAddrPort(resolved)
	if err != nil {
		return // a socket of another kind
	}
	d.mu.Lock()
	_, known := d.dialed[addr]
	if !known && len(d.dialed) >= maxDialed {
		clear(d.dialed)
	}
	if d.dialed == nil {
		d.dialed = map[netip.AddrPort]struct{}{}
	}
	d.dialed[addr] = struct{}{}
	changed := d.changed
	d.mu.Unlock()
	if !known && changed != nil {
		changed()
	}
}

// Dialed returns the addresses at which the client has dialed the API server, or a proxy to it.
func (c *Client) Dialed() []netip.AddrPort {
	c.dialer.mu.Lock()
	defer c.dialer.mu.Unlock()
	var out []netip.AddrPort
	for a := range c.dialer.dialed {
		out = append(out, a)
	}
	return out
}

// OnDialed makes the client call changed when Dialed has a new address. Call it before the client is used.
func (c *Client) OnDialed(changed func()) {
	c.dialer.mu.Lock()
	defer c.dialer.mu.Unlock()
	c.dialer.changed = changed
}
