package nftables

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/rules/service"
)

// SetMark sets the bits of Mask in the packet mark.
type SetMark struct{ Mask uint32 }

func (s SetMark) text(service.Family) string {
	return fmt.Sprintf("meta mark set meta mark | 0x%08x", s.Mask)
}

func (s SetMark) expressions(service.Family) []expr.Any { return changeMark(^s.Mask, s.Mask) }

func (SetMark) requires(service.Family) string { return core }

// ClearMark clears the bits of Mask in the packet mark. All of them must be set.
type ClearMark struct{ Mask uint32 }

func (s ClearMark) text(service.Family) string {
	return fmt.Sprintf("meta mark set meta mark ^ 0x%08x", s.Mask)
}

func (s ClearMark) expressions(service.Family) []expr.Any { return changeMark(^uint32(0), s.Mask) }

func (ClearMark) requires(service.Family) string { return core }

// HasMark matches if a bit of Mask is set in the packet mark.
type HasMark struct{ Mask uint32 }

func (s HasMark) text(service.Family) string {
	return fmt.Sprintf("meta mark & 0x%08x != 0x00000000", s.Mask)
}

func (s HasMark) expressions(service.Family) []expr.Any {
	return anyBitSet(&expr.Meta{Key: expr.MetaKeyMARK, Register: unix.NFT_REG_1}, s.Mask)
}

func (HasMark) requires(service.Family) string { return core }

// changeMark returns the expressions that set the mark to (mark & mask) ^ xor.
func changeMark(mask, xor uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: unix.NFT_REG_1},
		bitwise(mask, xor),
		&expr.Meta{Key: expr.MetaKeyMARK, Register: unix.NFT_REG_1, SourceRegister: true},
	}
}

// anyBitSet matches if one of the bits is set in the value that load writes to register 1.
func anyBitSet(load expr.Any, bits uint32) []expr.Any {
	return []expr.Any{load, bitwise(bits, 0), compare(true, make([]byte, 4))}
}

func bitwise(mask, xor uint32) *expr.Bitwise {
	return &expr.Bitwise{
		SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 4,
		Mask: binary.NativeEndian.AppendUint32(nil, mask), Xor: binary.NativeEndian.AppendUint32(nil, xor),
	}
}

// compare matches if register 1 equals data; with not, if it does not.
func compare(not bool, data []byte) *expr.Cmp {
	op := expr.CmpOpEq
	if not {
		op = expr.CmpOpNeq
	}
	return &expr.Cmp{Op: op, Register: unix.NFT_REG_1, Data: data}
}

// negation returns nft's operator of a match that may be negated.
func negation(not bool) string {
	if not {
		return "!= "
	}
	return ""
}
