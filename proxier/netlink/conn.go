package netlink

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Conn is a Socket for nftables: transactions, dumps and the generation of the ruleset. Without CAP_NET_ADMIN
// its methods return ErrPermission.
type Conn struct {
	Socket
	request Writer // the request of a dump
}

// Dial opens a Conn.
func Dial() (*Conn, error) {
	c := &Conn{Socket: Socket{fd: -1}}
	if err := c.ready(); err != nil {
		return nil, err
	}
	return c, nil
}

// Commit applies a batch as one transaction: all of it or, with an error, nothing. An empty batch costs
// nothing.
//
// The error is an *Error when the kernel refused the batch, and ErrUnknownOutcome when the answer was lost:
// then read the table to find out.
func (c *Conn) Commit(b *Batch) error {
	if err := c.transact(b, true); err != nil {
		return fmt.Errorf("commit nftables batch: %w", err)
	}
	return nil
}

// Check asks whether the kernel would accept a batch, and changes nothing: the kernel validates a batch
// without BATCH_END and drops it. Errors are those of Commit.
//
// Since Linux 6.4 Check does not notice a rule in the wrong hook if the batch itself creates the table (seen
// on 6.18; nft -c does not notice it either): when validation fails the kernel processes the batch once more
// to report the error, and the table, created anew, has lost the mark that it needs validation.
func (c *Conn) Check(b *Batch) error {
	if err := c.transact(b, false); err != nil {
		return fmt.Errorf("check nftables batch: %w", err)
	}
	return nil
}

func (c *Conn) transact(b *Batch, commit bool) error {
	if b.err != nil {
		return b.err
	}
	if b.Len() == 0 {
		return nil
	}
	if err := c.ready(); err != nil {
		return err
	}
	first := c.reserve(b.Len() + 2)
	if err := c.write(b.seal(first, commit)); err != nil {
		return err
	}
	return c.outcome(b, first)
}

// outcome reads the answers to a batch whose BATCH_BEGIN has sequence number first. The kernel answers each
// message that it refuses, and the last message in any case. An error of the commit itself answers
// BATCH_BEGIN, before that.
func (c *Conn) outcome(b *Batch, first uint32) error {
	var failed *Error
	var lost error
	size := errorSize
	if b.Echo != nil {
		size = dumpSize
	}
	for last := first + uint32(b.Len()); ; {
		datagram, err := c.receive(size)
		if errors.Is(err, unix.ENOBUFS) {
			// There were more answers than the receive buffer holds. The first ones are still in the queue.
			lost = err
			continue
		}
		if errors.Is(err, unix.EAGAIN) && failed != nil {
			return failed // the kernel was out of memory: it answers BATCH_BEGIN only
		}
		if err != nil {
			c.drop()
			return fmt.Errorf("%w: %w", ErrUnknownOutcome, errors.Join(lost, err))
		}
		for m := range messages(datagram) {
			i := int32(m.seq - first) // negative: the message is of an earlier batch
			if m.port == c.port {
				b.echoed(m)
			}
			if m.port != c.port || m.typ != unix.NLMSG_ERROR || i < 0 || int(i) > b.Len() {
				continue
			}
			if e := parseError(m); e != nil {
				failed = b.failed(failed, e, int(i)-1)
			}
			if m.seq != last {
				continue
			}
			if failed != nil {
				return failed
			}
			return nil
		}
	}
}
