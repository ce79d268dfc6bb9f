package netlink

import (
	"bytes"
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

// headerSize is the size of the netfilter header, between the netlink header and the attributes: family,
// version and resource (struct nfgenmsg of linux/netfilter/nfnetlink.h).
const headerSize = 4

// typeMask removes the flags from the type of an attribute.
const typeMask = ^uint16(unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)

// message is a message from the kernel. Its payload is a part of the buffer that it was read into.
type message struct {
	typ, flags uint16
	seq, port  uint32
	payload    []byte
}

// ends reports whether the message is the last one of an answer.
func (m message) ends() bool { return m.typ == unix.NLMSG_DONE || m.typ == unix.NLMSG_ERROR }

// messages walks the messages of a datagram. An incomplete message ends the walk.
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

// Attrs walks attributes and yields the type without flags, and the value, which is a part of b. An
// incomplete attribute ends the walk.
func Attrs(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofNlAttr {
			n := int(binary.NativeEndian.Uint16(b))
			if n < unix.SizeofNlAttr || n > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:])&typeMask, b[unix.SizeofNlAttr:n]) {
				return
			}
			b = b[min(len(b), align(n)):]
		}
	}
}

// String returns the value of a string attribute.
func String(v []byte) string {
	v, _, _ = bytes.Cut(v, []byte{0})
	return string(v)
}

// Uint32 returns the value of a big-endian attribute of 32 bits, and 0 if it is shorter.
func Uint32(v []byte) uint32 {
	if len(v) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(v)
}

// align returns n rounded up to where the next message or attribute starts.
func align(n int) int { return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }
