package kernel

import (
	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Options configure a Conn.
type Options struct {
	// Own makes the tables the Conn's own, where the kernel supports that: no other process can change them, and they
	// stay when the Conn is closed.
	Own bool
}

// Conn reads and writes nftproxy's tables in the network namespace of the thread that calls Dial.
type Conn struct {
	*netlink.Conn
	own   bool                    // tables are to be owned
	owned map[service.Family]bool // the tables that have, or had, an owner and persist

	commits uint32 // transactions since CheckDrift was last called
	seen    uint32 // the generation that CheckDrift saw
}

// Dial opens a Conn. Using it needs CAP_NET_ADMIN, and returns netlink.ErrPermission without it.
func Dial(opts Options) (*Conn, error) {
	transport, err := netlink.Dial()
	if err != nil {
		return nil, err
	}
	c := &Conn{Conn: transport, owned: map[service.Family]bool{}}
	c.own = opts.Own && c.canOwn()
	return c, nil
}

// commit commits a batch and counts it, to tell our transactions from those of other processes.
func (c *Conn) commit(b *netlink.Batch) error {
	if err := c.Commit(b); err != nil {
		return err
	}
	if b.Len() > 0 {
		c.commits++
	}
	return nil
}
