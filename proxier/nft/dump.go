package nft

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"

	"golang.org/x/sys/unix"
)

// attrTypeMask takes the flags off the type of an attribute.
const attrTypeMask = ^uint16(unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)

// nfgenmsgSize is the header between that of netlink and the attributes: family, version, resource.
const nfgenmsgSize = 4

// message is a message from the kernel, in the buffer that it was read into.
type message struct {
	typ, flags uint16
	seq, port  uint32
	payload    []byte
}

// messages walks a datagram. What is not a whole message ends it.
func messages(b []byte) iter.Seq[message] {
	return func(yield func(message) bool) {
		for len(b) >= unix.NLMSG_HDRLEN {
			n := int(binary.NativeEndian.Uint32(b))
			if n < unix.NLMSG_HDRLEN || n > len(b) {
				return
			}
			m := message{
				typ:     binary.NativeEndian.Uint16(b[4:]),
				flags:   binary.NativeEndian.Uint16(b[6:]),
				seq:     binary.NativeEndian.Uint32(b[8:]),
				port:    binary.NativeEndian.Uint32(b[12:]),
				payload: b[unix.NLMSG_HDRLEN:n],
			}
			if !yield(m) {
				return
			}
			b = b[min(len(b), align(n)):]
		}
	}
}

// attrs walks attributes: type without flags, and value. The values are parts of b.
// What is not a whole attribute ends it.
func attrs(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofNlAttr {
			n := int(binary.NativeEndian.Uint16(b))
			if n < unix.SizeofNlAttr || n > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:])&attrTypeMask, b[unix.SizeofNlAttr:n]) {
				return
			}
			b = b[min(len(b), align(n)):]
		}
	}
}

// attrString is the value of a string attribute.
func attrString(v []byte) string {
	v, _, _ = bytes.Cut(v, []byte{0})
	return string(v)
}

func align(n int) int { return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }

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
		for typ, list := range attrs(attributes) {
			if typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				continue
			}
			for _, element := range attrs(list) {
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
		datagram, err := c.receive()
		if err != nil {
			c.drop()
			return err
		}
		for m := range messages(datagram) {
			if m.seq != seq || m.port != c.port {
				continue
			}
			interrupted = interrupted || m.flags&unix.NLM_F_DUMP_INTR != 0
			switch {
			case m.typ == unix.NLMSG_DONE || m.typ == unix.NLMSG_ERROR:
				if e := parseError(m); e != nil {
					return e
				}
				if interrupted {
					return ErrInterrupted
				}
				return nil
			case m.typ>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.payload) < nfgenmsgSize:
				c.drop()
				return fmt.Errorf("unexpected answer of type %#x, %d bytes", m.typ, len(m.payload))
			}
			// The resource of an answer is the low half of the generation at its time. The kernel sets
			// NLM_F_DUMP_INTR for everything but elements (checked on 6.18).
			if resource := int(binary.BigEndian.Uint16(m.payload[2:])); first < 0 {
				first = resource
			} else if resource != first {
				interrupted = true
			}
			if err := each(m.payload[nfgenmsgSize:]); err != nil {
				c.drop() // the rest of the dump goes with the socket
				return err
			}
		}
	}
}
