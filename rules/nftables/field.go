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

// Field is a part of a key: a property of a packet or a connection, or a random number. For [Random], the
// bits above the low byte hold the number of values.
type Field uint32

const (
	SrcAddr  Field = iota + 1
	DstAddr        // of the packet
	L4Proto        // meta l4proto
	CtProto        // the same from conntrack: nft 1.0.6 swaps the bytes of meta l4proto in interval sets
	DstPort        // th dport
	Priority       // meta priority, the scratch register of a connection's first packet

	// ClientHash is a hash of client and frontend: nft 1.0.6 aborts on an update statement whose key is
	// longer than 16 bytes, which all keys with two IPv6 addresses are.
	ClientHash

	randomField
)

// hashSeed is the seed of ClientHash. It is a constant, so that a new process finds the clients that the one
// before it remembered.
const hashSeed = 0x6e667470

// Random is a random number below n, in the host's byte order.
func Random(n int) Field { return randomField | Field(n)<<8 }

// IsRandom reports whether the field is a random number.
func (field Field) IsRandom() bool { return field&0xff == randomField }

// RandomMod returns the n of Random(n), and 0 for other fields.
func (field Field) RandomMod() uint32 {
	if field.IsRandom() {
		return uint32(field >> 8)
	}
	return 0
}

// FrontendKey returns the fields of a packet that name a frontend.
func FrontendKey() []Field { return []Field{DstAddr, L4Proto, DstPort} }

// SlotKey returns the fields that choose one of the first n slots of a frontend at random.
func SlotKey(n int) []Field { return append(FrontendKey(), Random(n)) }

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
	case DstPort:
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
	case Priority:
		return "meta priority"
	case ClientHash:
		return fmt.Sprintf("jhash %s mod %d seed 0x%x",
			keyText(clientFields(), f), uint32(math.MaxUint32), hashSeed)
	}
	return fmt.Sprintf("numgen random mod %d", field.RandomMod())
}

// load returns the expressions that load the field into the register at the byte offset.
func (field Field) load(f service.Family, offset int) []expr.Any {
	if field == ClientHash {
		return loadHash(f, offset)
	}
	return []expr.Any{field.loadOne(f, register(offset))}
}

// loadHash loads the fields that are hashed behind register 1, as nft does.
func loadHash(f service.Family, offset int) []expr.Any {
	out, size := loadKeyAt(clientFields(), f, 16)
	return append(out, &expr.Hash{
		SourceRegister: register(16), DestRegister: register(offset), Length: uint32(size - 16),
		Modulus: math.MaxUint32, Seed: hashSeed, Type: expr.HashTypeJenkins,
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
	case Priority:
		return &expr.Meta{Key: expr.MetaKeyPRIORITY, Register: reg}
	}
	return &expr.Numgen{Register: reg, Modulus: field.RandomMod(), Type: unix.NFT_NG_RANDOM}
}

// ctRequires is what brings the expression ct.
const ctRequires = "CONFIG_NFT_CT (module nft_ct)"

// keyRequires returns the kernel options, modules and version that the lookup of a key needs.
func keyRequires(key []Field) string {
	needs := []string{core}
	for _, field := range key {
		switch {
		case field.IsRandom():
			needs = append(needs, "CONFIG_NFT_NUMGEN (module nft_numgen)")
		case field == ClientHash:
			needs = append(needs, "CONFIG_NFT_HASH (module nft_hash)")
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

// loadKeyAt is loadKey from a byte offset on. It also returns the offset behind the key.
func loadKeyAt(key []Field, f service.Family, offset int) ([]expr.Any, int) {
	out := make([]expr.Any, 0, len(key)+4)
	for _, field := range key {
		out = append(out, field.load(f, offset)...)
		offset += (field.Size(f) + 3) &^ 3
	}
	return out, offset
}

// register returns the register at the byte offset. The registers 1 to 4 have 16 bytes each; NFT_REG32_00 and
// the following ones are the same bytes in words of 4.
func register(offset int) uint32 {
	if offset%16 == 0 {
		return uint32(unix.NFT_REG_1 + offset/16)
	}
	return uint32(unix.NFT_REG32_00 + offset/4)
}
