package nftables

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/rules/service"
)

// Field is a part of a packet or connection that a key is made of. [Random] has the number of values above the low
// byte.
type Field uint32

const (
	SrcAddr     Field = iota + 1
	DstAddr           // of the packet
	L4Proto           // meta l4proto
	CtProto           // the same from conntrack: nft 1.0.6 swaps the bytes of meta l4proto in interval sets
	DstPort           // th dport
	OrigDstAddr       // before translation, from conntrack
	OrigDstPort

	randomField
)

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

// FrontendKey are the fields of a packet that make a frontend.
func FrontendKey() []Field { return []Field{DstAddr, L4Proto, DstPort} }

// SlotKey are the fields that choose one of n endpoints of a frontend.
func SlotKey(n int) []Field { return append(FrontendKey(), Random(n)) }

// Size returns the bytes that the field takes in a key, without padding.
func (field Field) Size(f service.Family) int {
	switch field {
	case SrcAddr, DstAddr, OrigDstAddr:
		return f.AddrSize()
	case L4Proto, CtProto:
		return 1
	case DstPort, OrigDstPort:
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
	case OrigDstAddr:
		return "ct original " + f.String() + " daddr"
	case OrigDstPort:
		return "ct original proto-dst"
	}
	return fmt.Sprintf("numgen random mod %d", field.RandomMod())
}

// load returns the expression that loads the field into the register at the byte offset.
func (field Field) load(f service.Family, offset int) expr.Any {
	reg := register(offset)
	ipv6 := f == service.IPv6
	switch field {
	case SrcAddr, DstAddr:
		at := uint32(12) // in the IPv4 header, RFC 791
		if ipv6 {
			at = 8 // in the IPv6 header, RFC 8200
		}
		if field == DstAddr {
			at += uint32(f.AddrSize())
		}
		return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: at, Len: uint32(f.AddrSize())}
	case L4Proto:
		return &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}
	case CtProto:
		return &expr.Ct{Key: expr.CtKeyPROTOCOL, Register: reg}
	case DstPort:
		return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
	case OrigDstAddr:
		key := expr.CtKeyDSTIP
		if ipv6 {
			key = expr.CtKeyDSTIP6
		}
		return &expr.Ct{Key: key, Register: reg, Direction: expr.CtDirOriginal}
	case OrigDstPort:
		return &expr.Ct{Key: expr.CtKeyPROTODST, Register: reg, Direction: expr.CtDirOriginal}
	}
	return &expr.Numgen{Register: reg, Modulus: field.RandomMod(), Type: unix.NFT_NG_RANDOM}
}

// ctRequires is what brings the expression ct; conntrack's tuples as 16-byte addresses came with Linux 4.17.
const ctRequires = "CONFIG_NFT_CT (module nft_ct), Linux 4.17"

// keyRequires names what the lookup of a key needs.
func keyRequires(key []Field) string {
	needs := []string{core}
	for _, field := range key {
		switch {
		case field.IsRandom():
			needs = append(needs, "CONFIG_NFT_NUMGEN (module nft_numgen)")
		case field == CtProto, field == OrigDstAddr, field == OrigDstPort:
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

// loadKey loads fields one after the other, each padded to 4 bytes, from register 1 on.
func loadKey(key []Field, f service.Family) []expr.Any {
	out := make([]expr.Any, 0, len(key)+4)
	offset := 0
	for _, field := range key {
		out = append(out, field.load(f, offset))
		offset += (field.Size(f) + 3) &^ 3
	}
	return out
}

// register returns the register at the byte offset. The registers 1 to 4 have 16 bytes each; NFT_REG32_00 and
// following are the same memory in words of 4 bytes.
func register(offset int) uint32 {
	if offset%16 == 0 {
		return uint32(unix.NFT_REG_1 + offset/16)
	}
	return uint32(unix.NFT_REG32_00 + offset/4)
}
