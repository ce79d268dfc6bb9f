package nft

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/netfilter"
	"github.com/nftproxy/nftproxy/rules"
)

// proto returns the NFPROTO_ number of the family.
func proto(f rules.Family) uint8 {
	if f == rules.IPv4 {
		return unix.NFPROTO_IPV4
	}
	return unix.NFPROTO_IPV6
}

// expressions translates a rule into the kernel's expressions, the same that nft
// makes of the rule's text.
func expressions(r rules.Rule, f rules.Family) []expr.Any {
	var out []expr.Any
	for _, s := range r {
		out = append(out, statement(s, f)...)
	}
	return out
}

func statement(s rules.Statement, f rules.Family) []expr.Any {
	switch s := s.(type) {
	case rules.Jump:
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: s.Chain}}
	case rules.Drop:
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}
	case rules.Reject:
		return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: portUnreachable(f)}}
	case rules.Reset:
		return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}
	case rules.Masquerade:
		return []expr.Any{&expr.Masq{FullyRandom: true}}
	case rules.SetMark:
		return setMark(^s.Mask, s.Mask)
	case rules.ClearMark:
		return setMark(^uint32(0), s.Mask)
	case rules.HasMark:
		return flagsSet(&expr.Meta{Key: expr.MetaKeyMARK, Register: unix.NFT_REG_1}, s.Mask)
	case rules.Translated:
		return flagsSet(&expr.Ct{Key: expr.CtKeySTATUS, Register: unix.NFT_REG_1}, ctStatusDNAT)
	case rules.InSet:
		return append(load(s.Key, f), &expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: s.Set, Invert: s.Not})
	case rules.Dispatch:
		return append(load(s.Key, f), &expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: s.Map, IsDestRegSet: true})
	case rules.DNAT:
		return dnat(s, f)
	case rules.Remember:
		return append(load([]rules.Field{rules.SrcAddr}, f), loadAt(rules.DstAddr, f, 16), &expr.Dynset{
			SrcRegKey: unix.NFT_REG_1, SrcRegData: unix.NFT_REG_2, SetName: s.Map,
			Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: s.Timeout})
	case rules.AddrLocal:
		return []expr.Any{
			&expr.Fib{Register: unix.NFT_REG_1, ResultADDRTYPE: true, FlagSADDR: s.Addr == rules.SrcAddr, FlagDADDR: s.Addr == rules.DstAddr},
			compare(s.Not, binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL)),
		}
	case rules.Interface:
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: unix.NFT_REG_1}, compare(s.Not, interfaceName(s.Name))}
	case rules.IsProtocol:
		return isProtocol(s.Protocol)
	case rules.IsPort:
		return append(isProtocol(s.Protocol), loadAt(rules.DstPort, f, 0), compare(s.Not, binary.BigEndian.AppendUint16(nil, s.Port)))
	}
	panic(fmt.Sprintf("nft: statement %T has no expressions", s))
}

// ctStatusDNAT is IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h.
const ctStatusDNAT = 1 << 5

// portUnreachable is the ICMP code: RFC 792, RFC 4443.
func portUnreachable(f rules.Family) uint8 {
	if f == rules.IPv4 {
		return 3
	}
	return 4
}

func setMark(mask, xor uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: unix.NFT_REG_1},
		bitwise(mask, xor),
		&expr.Meta{Key: expr.MetaKeyMARK, Register: unix.NFT_REG_1, SourceRegister: true},
	}
}

// flagsSet matches when one of the flags is set in what from loads.
func flagsSet(from expr.Any, flags uint32) []expr.Any {
	return []expr.Any{from, bitwise(flags, 0), compare(true, make([]byte, 4))}
}

func bitwise(mask, xor uint32) *expr.Bitwise {
	return &expr.Bitwise{
		SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 4,
		Mask: binary.NativeEndian.AppendUint32(nil, mask), Xor: binary.NativeEndian.AppendUint32(nil, xor),
	}
}

func compare(not bool, data []byte) *expr.Cmp {
	op := expr.CmpOpEq
	if not {
		op = expr.CmpOpNeq
	}
	return &expr.Cmp{Op: op, Register: unix.NFT_REG_1, Data: data}
}

func isProtocol(p rules.Protocol) []expr.Any {
	return []expr.Any{loadAt(rules.L4Proto, rules.IPv4, 0), compare(false, []byte{byte(p)})}
}

// interfaceName returns what the name is compared with: all IFNAMSIZ bytes, or
// the beginning before a *.
func interfaceName(name string) []byte {
	if prefix, ok := strings.CutSuffix(name, "*"); ok {
		return []byte(prefix)
	}
	b := make([]byte, max(unix.IFNAMSIZ, len(name)))
	copy(b, name)
	return b[:unix.IFNAMSIZ]
}

// dnat looks the key up; the address comes to register 1 and the port behind it.
func dnat(s rules.DNAT, f rules.Family) []expr.Any {
	port := register(f.AddrSize())
	out := append(load(s.Key, f), &expr.Lookup{
		SourceRegister: unix.NFT_REG_1, SetName: s.Map, IsDestRegSet: true, DestRegister: unix.NFT_REG_1})
	if s.Port != 0 {
		port = unix.NFT_REG_2
		out = append(out, &expr.Immediate{Register: port, Data: binary.BigEndian.AppendUint16(nil, s.Port)})
	}
	return append(out, &expr.NAT{
		Type: expr.NATTypeDestNAT, Family: uint32(proto(f)), Specified: true,
		RegAddrMin: unix.NFT_REG_1, RegAddrMax: unix.NFT_REG_1, RegProtoMin: port, RegProtoMax: port,
	})
}

// load loads fields one behind the other, each padded to 4 bytes, from register 1 on.
func load(key []rules.Field, f rules.Family) []expr.Any {
	out := make([]expr.Any, 0, len(key)+4)
	offset := 0
	for _, field := range key {
		out = append(out, loadAt(field, f, offset))
		offset += netfilter.Align(field.Size(f))
	}
	return out
}

// register returns the register at the byte offset: the registers 1 to 4 are of 16
// bytes, NFT_REG32_00 and following are the same memory in words of 4.
func register(offset int) uint32 {
	if offset%16 == 0 {
		return uint32(unix.NFT_REG_1 + offset/16)
	}
	return uint32(unix.NFT_REG32_00 + offset/4)
}

func loadAt(field rules.Field, f rules.Family, offset int) expr.Any {
	reg := register(offset)
	switch field {
	case rules.SrcAddr, rules.DstAddr:
		at := map[rules.Family]uint32{rules.IPv4: 12, rules.IPv6: 8}[f]
		if field == rules.DstAddr {
			at += uint32(f.AddrSize())
		}
		return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: at, Len: uint32(f.AddrSize())}
	case rules.L4Proto:
		return &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}
	case rules.CtProto:
		return &expr.Ct{Key: expr.CtKeyPROTOCOL, Register: reg}
	case rules.DstPort:
		return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
	case rules.OrigDstAddr:
		key := map[rules.Family]expr.CtKey{rules.IPv4: expr.CtKeyDSTIP, rules.IPv6: expr.CtKeyDSTIP6}[f]
		return &expr.Ct{Key: key, Register: reg, Direction: expr.CtDirOriginal}
	case rules.OrigDstPort:
		return &expr.Ct{Key: expr.CtKeyPROTODST, Register: reg, Direction: expr.CtDirOriginal}
	}
	return &expr.Numgen{Register: reg, Modulus: field.RandomMod(), Type: unix.NFT_NG_RANDOM}
}
