package nft

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/netfilter"
)

// dump asks for all objects of a kind, by NFT_MSG_GETTABLE, GETCHAIN, GETRULE, GETSET or GETSETELEM, and calls each
// with the attributes of every one. They are valid during the call only; an error of each ends the dump.
//
// Names that are not empty narrow it, as far as the kernel goes along: table for rules, sets and elements (not for
// tables and chains), name for the rules of a chain (required nowhere) and the elements of a set (required).
//
// ErrInterrupted, after everything was delivered, says that the ruleset changed meanwhile, in whatever table: what was
// read may miss objects or have them twice. It does not notice all: the kernel resizes a set without a size of its own
// accord, for a moment after many elements came or went, and a dump at that time has elements twice or not at all.
func (c *Conn) dump(msgType uint16, family uint8, table, name string, each func(attributes []byte) error) error {
	if err := c.request(msgType, unix.NLM_F_DUMP, family, table, name, each); err != nil {
		return fmt.Errorf("dump nftables (message type %d, table %q, name %q): %w", msgType, table, name, err)
	}
	return nil
}

// dumpElements is dump for the elements of a set or map: each gets the attributes NFTA_SET_ELEM_ of one element.
func (c *Conn) dumpElements(family uint8, table, set string, each func(element []byte) error) error {
	return c.dump(unix.NFT_MSG_GETSETELEM, family, table, set, func(attributes []byte) error {
		for typ, list := range netfilter.Attrs(attributes) {
			if typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				continue
			}
			for _, element := range netfilter.Attrs(list) {
				if err := each(element); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// request sends one message outside a batch and calls each with the attributes of every answer.
func (c *Conn) request(msgType, flags uint16, family uint8, table, name string, each func([]byte) error) error {
	if err := c.ready(); err != nil {
		return err
	}
	seq := c.reserve(1)
	// The attributes 1 and 2 of all the requests named at dump.
	r := Batch{buf: appendHeader(c.req[:0], unix.NFNL_SUBSYS_NFTABLES<<8|msgType, unix.NLM_F_REQUEST|flags, family, 0)}
	if table != "" {
		r.String(1, table)
	}
	if name != "" {
		r.String(2, name)
	}
	if r.err != nil {
		return r.err
	}
	setLength(r.buf, 0)
	setSequence(r.buf, 0, seq)
	c.req = r.buf
	if err := c.send(r.buf); err != nil {
		return err
	}
	return c.answers(seq, each)
}

// answers reads up to the end of the answer to a request.
func (c *Conn) answers(seq uint32, each func([]byte) error) error {
	interrupted := false
	first := -1
	for {
		datagram, err := netfilter.Receive(c.fd, c.buf)
		if err != nil {
			c.drop()
			return err
		}
		for m := range netfilter.Messages(datagram) {
			if m.Seq != seq || m.Port != c.port {
				continue
			}
			interrupted = interrupted || m.Flags&unix.NLM_F_DUMP_INTR != 0
			switch {
			case m.Type == unix.NLMSG_DONE || m.Type == unix.NLMSG_ERROR:
				if e := parseError(m); e != nil {
					return e
				}
				if interrupted {
					return ErrInterrupted
				}
				return nil
			case m.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.Payload) < netfilter.HeaderSize:
				c.drop()
				return fmt.Errorf("unexpected answer of type %#x, %d bytes", m.Type, len(m.Payload))
			}
			// The resource of an answer is the low half of the generation at its time. The kernel sets
			// NLM_F_DUMP_INTR for everything but elements (checked on 6.18).
			if resource := int(binary.BigEndian.Uint16(m.Payload[2:])); first < 0 {
				first = resource
			} else if resource != first {
				interrupted = true
			}
			if err := each(m.Payload[netfilter.HeaderSize:]); err != nil {
				c.drop() // the rest of the dump goes with the socket
				return err
			}
		}
	}
}
