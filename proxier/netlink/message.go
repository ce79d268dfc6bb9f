package netlink

import (
	"bytes"
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

// headerSize is the size of the header between that of netlink and the attributes: family, version and resource
// (struct nfgenmsg of linux/netfilter/nfnetlink.h).
const headerSize = 4

// typeMask removes the flags from the type of an attribute.
const typeMask = ^uint16(unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)

// Message is a message from the kernel, in the buffer that it was read into.
type Message struct {
	Type, Flags uint16
	Seq, Port   uint32
	Payload     []byte
}

// Attributes returns the attributes of a netfilter message, behind its header; nil for a message that is too short.
func (m Message) Attributes() []byte {
	if len(m.Payload) < headerSize {
		return nil
	}
	return m.Payload[headerSize:]
}

// ends reports whether the message is the last one of an answer.
func (m Message) ends() bool { return m.Type == unix.NLMSG_DONE || m.Type == unix.NLMSG_ERROR }

// Messages walks the messages of a datagram. An incomplete message ends the walk.
func Messages(b []byte) iter.Seq[Message] {
	return func(yield func(Message) bool) {
		for len(b) >= unix.NLMSG_HDRLEN {
			n := int(binary.NativeEndian.Uint32(b))
			if n < unix.NLMSG_HDRLEN || n > len(b) {
				return
			}
			m := Message{
				Type:    binary.NativeEndian.Uint16(b[4:]),
				Flags:   binary.NativeEndian.Uint16(b[6:]),
				Seq:     binary.NativeEndian.Uint32(b[8:]),
				Port:    binary.NativeEndian.Uint32(b[12:]),
				Payload: b[unix.NLMSG_HDRLEN:n],
			}
			if !yield(m) {
				return
			}
			b = b[min(len(b), align(n)):]
		}
	}
}

// Attrs walks attributes: type without flags, and value. The values are parts of b. An incomplete attribute ends the
// walk.
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

// Uint32 returns the value of a big-endian attribute of 32 bits, and 0 for a shorter one.
func Uint32(v []byte) uint32 {
	if len(v) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(v)
}

// align returns n rounded up to where the next message or attribute starts.
func align(n int) int { return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }
