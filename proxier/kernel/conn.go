package kernel

import (
	"hash/maphash"

	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Options configure a Conn.
type Options struct {
	// Own makes the Conn the owner of the tables, where the kernel supports this (Linux 6.9): no other
	// process can change them, and they stay when the Conn is closed.
	Own bool
	// Counted gets what the counter of each frontend was that a transaction deletes or replaces, during
	// Apply; of none if they are more than netlink.Socket.EchoRoom. It may be nil.
	Counted func(Connections)
}

// Conn reads and writes nftproxy's tables in the network namespace of the thread that calls Dial.
type Conn struct {
	*netlink.Conn
	counted func(Connections)

	own   bool                    // whether to own the tables
	owned map[service.Family]bool // whether a table has, or had, an owner and persists
	held  map[service.Family]int  // the socket (Opened) that was seen to own a table

	// verified are the fingerprints of chains that were found to be the wanted ones.
	verified map[service.Family]uint64
	seed     maphash.Seed // of fingerprints

	commits uint32 // our transactions since seen
	seen    uint32 // the generation when CheckDrift was last called, or when the tables were last read
}

// Dial opens a Conn. Without CAP_NET_ADMIN its methods return netlink.ErrPermission.
func Dial(opts Options) (*Conn, error) {
	transport, err := netlink.Dial()
	if err != nil {
		return nil, err
	}
	c := &Conn{Conn: transport, owned: map[service.Family]bool{}, held: map[service.Family]int{},
		verified: map[service.Family]uint64{}, seed: maphash.MakeSeed(),
		counted: opts.Counted}
	c.own = opts.Own && c.canOwn()
	return c, nil
}

// Commit commits a batch and counts it, so that CheckDrift can distinguish our transactions from those of
// other processes.
func (c *Conn) Commit(b *netlink.Batch) error {
	if err := c.Conn.Commit(b); err != nil {
		return err
	}
	if b.Len() > 0 {
		c.commits++
	}
	return nil
}
