package nftables

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/rules/service"
)

// Field is a part of a key: a property of a packet or a connection, or a number that chooses a slot. For
// those that choose, the bits above the low byte hold the number of slots.
type Field uint32

const (
	SrcAddr  Field = iota + 1
	DstAddr        // of the packet
	L4Proto        // meta l4proto
	CtProto        // the same from conntrack: nft 1.0.6 swaps the bytes of meta l4proto in interval sets
	DstPort        // th dport
	SrcPort        // th sport
	Priority       // meta priority, the scratch register of a connection's first packet

	// ClientHash is a hash of client and frontend: nft 1.0.6 aborts on an update statement whose key is
	// longer than 16 bytes, which all keys with two IPv6 addresses are.
	ClientHash

	randomField
	flowField
	sourceField
)

// hashSeed is the seed of ClientHash. It is a constant, so that a new process finds the clients that the one
// before it remembered.
const hashSeed = 0x6e667470

// slotSeed is the seed of [FlowHash] and [SourceHash]. It is a constant, so that every node chooses the same
// slot for a client.
const slotSeed = 0x6d676c76

// Random is a random number below n, in the host's byte order.
func Random(n int) Field { return randomField | Field(n)<<8 }

// FlowHash is a hash of the source address and port, below n.
func FlowHash(n int) Field { return flowField | Field(n)<<8 }

// SourceHash is a hash of the source address, below n.
func SourceHash(n int) Field { return sourceField | Field(n)<<8 }

// IsRandom reports whether the field is a random number.
func (field Field) IsRandom() bool { return field&0xff == randomField }

// Slots returns the n of a field that chooses one of n slots, and 0 for other fields.
func (field Field) Slots() int {
	if field.chooses() {
		return int(field >> 8)
	}
	return 0
}

func (field Field) chooses() bool { return field&0xff >= randomField }

// hash returns what the field is a hash of, and how; false for other fields.
func (field Field) hash() (hash, bool) {
	switch field & 0xff {
	case ClientHash:
		return hash{clientFields(), math.MaxUint32, hashSeed}, true
	case flowField:
		return hash{[]Field{SrcAddr, SrcPort}, uint32(field.Slots()), slotSeed}, true
	case sourceField:
		return hash{[]Field{SrcAddr}, uint32(field.Slots()), slotSeed}, true
	}
	return hash{}, false
}

// hash is Jenkins' hash of some fields, scaled to a number below the modulus.
type hash struct {
	of            []Field
	modulus, seed uint32
}

// FrontendKey returns the fields of a packet that name a frontend.
func FrontendKey() []Field { return []Field{DstAddr, L4Proto, DstPort} }

// SlotKey returns the fields that choose one of the first n slots of a frontend at random.
func SlotKey(n int) []Field { return SlotKeyBy(Random(n)) }

// SlotKeyBy returns the fields that choose a slot of a frontend by a field.
func SlotKeyBy(choice Field) []Field { return append(FrontendKey(), choice) }

// BackendKey are the fields that name a backend of a frontend by the number in the priority.
func BackendKey() []Field { return append(FrontendKey(), Priority) }

// ClientKey are the fields that name a client of a frontend.
func ClientKey(f service.Family) []Field {
	if f == service.IPv6 {
		return []Field{ClientHash}
	}
	return clientFields()
}

// clientFields are the fields that ClientHash is made of.
func clientFields() []Field { return append([]Field{SrcAddr}, FrontendKey()...) }

// Size returns the bytes that the field takes in a key, without padding.
func (field Field) Size(f service.Family) int {
	switch field {
	case SrcAddr, DstAddr:
		return f.AddrSize()
	case L4Proto, CtProto:
		return 1
	case DstPort, SrcPort:
		return 2
	}
	return 4
}

func (field Field) text(f service.Family) string {
	switch field {
	case SrcAddr:
		return f.String() + " saddr"
	case DstAddr:
		return f.String() + " daddr"
	case L4Proto:
		return "meta l4proto"
	case CtProto:
		return "ct protocol"
	case DstPort:
		return "th dport"
	case SrcPort:
		return "th sport"
	case Priority:
		return "meta priority"
	}
	if h, ok := field.hash(); ok {
		return fmt.Sprintf("jhash %s mod %d seed 0x%x", keyText(h.of, f), h.modulus, h.seed)
	}
	return fmt.Sprintf("numgen random mod %d", field.Slots())
}

// load returns the expressions that load the field into the register at a byte offset. What it is a hash of
// is loaded from another offset on.
func (field Field) load(f service.Family, offset, scratch int) []expr.Any {
	h, ok := field.hash()
	if !ok {
		return []expr.Any{field.loadOne(f, register(offset))}
	}
	out, end := loadKeyAt(h.of, f, scratch)
	return append(out, &expr.Hash{
		SourceRegister: register(scratch), DestRegister: register(offset), Length: uint32(end - scratch),
		Modulus: h.modulus, Seed: h.seed, Type: expr.HashTypeJenkins,
	})
}

func (field Field) loadOne(f service.Family, reg uint32) expr.Any {
	switch field {
	case SrcAddr, DstAddr:
		at := uint32(12) // in the IPv4 header, RFC 791
		if f == service.IPv6 {
			at = 8 // in the IPv6 header, RFC 8200
		}
		if field == DstAddr {
			at += uint32(f.AddrSize())
		}
		return &expr.Payload{
			DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: at, Len: uint32(f.AddrSize()),
		}
	case L4Proto:
		return &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}
	case CtProto:
		return &expr.Ct{Key: expr.CtKeyPROTOCOL, Register: reg}
	case DstPort:
		return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
	case SrcPort:
		return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Len: 2}
	case Priority:
		return &expr.Meta{Key: expr.MetaKeyPRIORITY, Register: reg}
	}
	return &expr.Numgen{Register: reg, Modulus: uint32(field.Slots()), Type: unix.NFT_NG_RANDOM}
}

// numgenRequires is what brings the expression numgen.
const numgenRequires = "CONFIG_NFT_NUMGEN (module nft_numgen)"

// ctRequires is what brings the expression ct.
const ctRequires = "CONFIG_NFT_CT (module nft_ct)"

// keyRequires returns the kernel options, modules and version that the lookup of a key needs.
func keyRequires(key []Field) string {
	needs := []string{core}
	for _, field := range key {
		_, hashed := field.hash()
		switch {
		case hashed:
			needs = append(needs, "CONFIG_NFT_HASH (module nft_hash)")
		case field.chooses():
			needs = append(needs, numgenRequires)
		case field == CtProto:
			needs = append(needs, ctRequires)
		}
	}
	return strings.Join(slices.Compact(needs), ", ")
}

func keyText(key []Field, f service.Family) string {
	parts := make([]string, len(key))
	for i, field := range key {
		parts[i] = field.text(f)
	}
	return strings.Join(parts, " . ")
}

// loadKey returns the expressions that load fields one after the other, each padded to 4 bytes, from register
// 1 on.
func loadKey(key []Field, f service.Family) []expr.Any {
	out, _ := loadKeyAt(key, f, 0)
	return out
}

// loadKeyAt is loadKey from a byte offset on. It also returns the offset behind the key. As in nft, what a
// column is a hash of is loaded behind a register for the result and those of the key, if it has several
// columns.
func loadKeyAt(key []Field, f service.Family, offset int) ([]expr.Any, int) {
	out := make([]expr.Any, 0, len(key)+4)
	scratch := 16
	if len(key) > 1 {
		scratch += keySize(key, f)
	}
	for _, field := range key {
		out = append(out, field.load(f, offset, scratch)...)
		offset += field.padded(f)
	}
	return out, offset
}

// padded returns the bytes that the field takes in a key.
func (field Field) padded(f service.Family) int { return (field.Size(f) + 3) &^ 3 }

func keySize(key []Field, f service.Family) (size int) {
	for _, field := range key {
		size += field.padded(f)
	}
	return size
}

// register returns the register at the byte offset. The registers 1 to 4 have 16 bytes each; NFT_REG32_00 and
// the following ones are the same bytes in words of 4.
func register(offset int) uint32 {
	if offset%16 == 0 {
		return uint32(unix.NFT_REG_1 + offset/16)
	}
	return uint32(unix.NFT_REG32_00 + offset/4)
}
