package netlink

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Conn is a Socket for nftables: transactions, dumps and the generation of the ruleset. Using it without
// CAP_NET_ADMIN returns ErrPermission.
type Conn struct {
	Socket
	request Writer // of a dump
}

// Dial opens a Conn.
func Dial() (*Conn, error) {
	c := &Conn{Socket: newSocket()}
	if err := c.ready(); err != nil {
		return nil, err
	}
	return c, nil
}

// Commit applies a batch as one transaction: all of it or, with an error, nothing. An empty batch costs nothing.
//
// The error is an *Error when the kernel refused the batch, ErrStale (by errors.Is) when the generation given to
// Batch.Begin has passed, and ErrUnknownOutcome when the answer was lost: then read the table to find out.
func (c *Conn) Commit(b *Batch) error {
	if err := c.transact(b, true); err != nil {
		return fmt.Errorf("commit nftables batch: %w", err)
	}
	return nil
}

// Check asks whether the kernel would take a batch, and changes nothing: without its end the kernel validates the
// batch and drops it. Errors are those of Commit.
//
// Since Linux 6.4 it does not notice a rule in the wrong hook if the batch makes the table itself (seen on 6.18; nft -c
// is the same): the kernel reports a failed validation by doing the batch once more, in a table that has forgotten it.
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

// outcome reads the answers to a batch whose BATCH_BEGIN has sequence number first. Every message that failed has
// an answer, and so has the last one, failed or not; an error of the commit itself answers BATCH_BEGIN, before it.
func (c *Conn) outcome(b *Batch, first uint32) error {
	var failed *Error
	var lost error
	for last := first + uint32(b.Len()); ; {
		datagram, err := c.receive()
		if errors.Is(err, unix.ENOBUFS) {
			// More answers than the receive buffer holds. Those that came first are still there to be read.
			lost = err
			continue
		}
		if errors.Is(err, unix.EAGAIN) && failed != nil {
			return failed // out of memory: the one answer is that of BATCH_BEGIN
		}
		if err != nil {
			c.drop()
			return fmt.Errorf("%w: %w", ErrUnknownOutcome, errors.Join(lost, err))
		}
		for m := range Messages(datagram) {
			i := int32(m.Seq - first) // below zero: a message of an earlier batch
			if m.Port != c.port || m.Type != unix.NLMSG_ERROR || i < 0 || int(i) > b.Len() {
				continue
			}
			if e := parseError(m); e != nil {
				failed = b.failed(failed, e, int(i)-1)
			}
			if m.Seq != last {
				continue
			}
			if failed != nil {
				return failed
			}
			return nil
		}
	}
}
