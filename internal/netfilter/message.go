// Package netfilter is what the nftables and the conntrack code share of netlink: how
// messages and attributes are laid out, and sockets in other network namespaces.
package netfilter

import (
	"bytes"
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

// HeaderSize is the size of the header between that of netlink and the attributes:
// family, version, resource (struct nfgenmsg).
const HeaderSize = 4

// TypeMask takes the flags off the type of an attribute.
const TypeMask = ^uint16(unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)

// Message is a message from the kernel, in the buffer that it was read into.
type Message struct {
	Type, Flags uint16
	Seq, Port   uint32
	Payload     []byte
}

// Messages walks a datagram. What is not a whole message ends it.
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
			b = b[min(len(b), Align(n)):]
		}
	}
}

// Attrs walks attributes: type without flags, and value. The values are parts of b.
// What is not a whole attribute ends it.
func Attrs(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofNlAttr {
			n := int(binary.NativeEndian.Uint16(b))
			if n < unix.SizeofNlAttr || n > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:])&TypeMask, b[unix.SizeofNlAttr:n]) {
				return
			}
			b = b[min(len(b), Align(n)):]
		}
	}
}

// String returns the value of a string attribute.
func String(v []byte) string {
	v, _, _ = bytes.Cut(v, []byte{0})
	return string(v)
}

// Align returns n rounded up to where the next message or attribute starts.
func Align(n int) int { return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }
