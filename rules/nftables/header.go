package nftables

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/nftproxy/nftproxy/rules/service"
)

// Header has the values that the fields of a key take from a packet.
type Header struct {
	Src, Dst netip.Addr
	Protocol service.Protocol
	Port     uint16 // destination
	Priority Class
	Random   int // the number that [Random] or [FlowHash] gives
}

// Key returns the key that the kernel looks up for the fields.
func (h Header) Key(fields []Field) Key {
	var k Key
	p := &put{buf: k[:]}
	for _, field := range fields {
		switch field {
		case SrcAddr:
			p.addr(h.Src)
		case DstAddr:
			p.addr(h.Dst)
		case L4Proto, CtProto:
			p.proto(h.Protocol)
		case DstPort:
			p.port(h.Port)
		case Priority:
			p.number(uint32(h.Priority))
		default:
			p.number(h.number(field))
		}
	}
	return k
}

// number returns what a field is that is not in the packet itself. The source port is not known.
func (h Header) number(field Field) uint32 {
	hash, ok := field.hash()
	if !ok || slices.Contains(hash.of, SrcPort) {
		return uint32(h.Random)
	}
	key := h.Key(hash.of)
	return hash.number(key[:keySize(hash.of, service.FamilyOf(h.Dst))])
}

// number is what the statement jhash makes of a key: the hash, scaled to the modulus as by reciprocal_scale
// of linux/kernel.h.
func (h hash) number(key []byte) uint32 {
	return uint32(uint64(jhash(key, h.seed)) * uint64(h.modulus) >> 32)
}

// jhash is Jenkins' lookup3 as in linux/jhash.h, for a length that is not 0.
func jhash(key []byte, seed uint32) uint32 {
	a := 0xdeadbeef + uint32(len(key)) + seed
	b, c := a, a
	word := func(i int) uint32 {
		var w [4]byte
		if i < len(key) {
			copy(w[:], key[i:])
		}
		return binary.NativeEndian.Uint32(w[:])
	}
	i := 0
	for ; len(key)-i > 12; i += 12 {
		a, b, c = a+word(i), b+word(i+4), c+word(i+8)
		a = (a - c) ^ bits.RotateLeft32(c, 4)
		c += b
		b = (b - a) ^ bits.RotateLeft32(a, 6)
		a += c
		c = (c - b) ^ bits.RotateLeft32(b, 8)
		b += a
		a = (a - c) ^ bits.RotateLeft32(c, 16)
		c += b
		b = (b - a) ^ bits.RotateLeft32(a, 19)
		a += c
		c = (c - b) ^ bits.RotateLeft32(b, 4)
		b += a
	}
	a, b, c = a+word(i), b+word(i+4), c+word(i+8)
	c = (c ^ b) - bits.RotateLeft32(b, 14)
	a = (a ^ c) - bits.RotateLeft32(c, 11)
	b = (b ^ a) - bits.RotateLeft32(a, 25)
	c = (c ^ b) - bits.RotateLeft32(b, 16)
	a = (a ^ c) - bits.RotateLeft32(c, 4)
	b = (b ^ a) - bits.RotateLeft32(a, 14)
	return (c ^ b) - bits.RotateLeft32(b, 24)
}
