package trace

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/rules/service"
)

// field is what a register holds.
type field struct {
	name     string
	size     int                       // in bytes; 0: 4 or less
	text     func(value []byte) string // nil: hexadecimal
	flags    func(mask []byte) string  // names of the bits; nil: it has none
	mask     []byte                    // of a bitwise and
	protocol bool
	implied  bool // nft leaves it out where it follows from another field

	constants []byte // the value itself, if a rule has loaded one
}

// address reports whether the field is an address, of which a mask is a prefix.
func (f field) address() bool { return f.size == 4 || f.size == 16 }

// constant returns a value of the field.
func (f field) constant(v []byte) string {
	if f.text == nil {
		return fmt.Sprintf("0x%x", v)
	}
	return f.text(v)
}

// value returns a value that the field is compared with, and whether nft leaves the comparison out.
func (f field) value(v []byte) (text string, hidden bool) {
	text = f.constant(v)
	if f.mask != nil && f.address() {
		ones := 0
		for _, b := range f.mask {
			ones += bits.OnesCount8(b)
		}
		text += fmt.Sprintf("/%d", ones)
	}
	return text, f.implied
}

// bitwise returns the field after (field & mask) ^ xor.
func (f field) bitwise(b expr.Bitwise) field {
	if zero(b.Xor) {
		f.mask = b.Mask
		return f
	}
	set := len(b.Mask) == len(b.Xor)
	for i := range b.Mask {
		set = set && b.Mask[i] == ^b.Xor[i]
	}
	if set {
		return field{name: f.name + " | " + f.constant(b.Xor), text: f.text}
	}
	return field{name: fmt.Sprintf("%s & %s ^ %s", f.name, f.constant(b.Mask), f.constant(b.Xor)), text: f.text}
}

func protocolName(number byte) string {
	switch number {
	case unix.IPPROTO_ICMP:
		return "icmp"
	case unix.IPPROTO_ICMPV6:
		return "ipv6-icmp"
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP:
		return service.Protocol(number).String()
	}
	return fmt.Sprint(number)
}

func protocolText(v []byte) string {
	if len(v) == 0 {
		return ""
	}
	return protocolName(v[0])
}

func addrText4(v []byte) string { return addrText(v, 4) }

func addrText6(v []byte) string { return addrText(v, 16) }

// addrText returns an address. A prefix of whole bytes is compared without the rest.
func addrText(v []byte, size int) string {
	if len(v) > size {
		return fmt.Sprintf("0x%x", v)
	}
	addr, _ := netip.AddrFromSlice(append(v[:len(v):len(v)], make([]byte, size-len(v))...))
	if len(v) < size {
		return netip.PrefixFrom(addr, 8*len(v)).String()
	}
	return addr.String()
}

func portText(v []byte) string {
	if len(v) != 2 {
		return fmt.Sprintf("0x%x", v)
	}
	return fmt.Sprint(binary.BigEndian.Uint16(v))
}

func nameText(v []byte) string {
	name, _, whole := strings.Cut(string(v), "\x00")
	if !whole && len(v) < unix.IFNAMSIZ { // the beginning of a name
		name += "*"
	}
	return `"` + name + `"`
}

func numberText(v []byte) string {
	switch len(v) {
	case 1:
		return fmt.Sprint(v[0])
	case 4:
		return fmt.Sprintf("0x%x", binary.NativeEndian.Uint32(v))
	}
	return fmt.Sprintf("0x%x", v)
}

// metaField returns a key of the expression meta.
func metaField(k expr.MetaKey) field {
	switch k {
	case expr.MetaKeyL4PROTO:
		return field{name: "meta l4proto", text: protocolText, protocol: true}
	case expr.MetaKeyNFPROTO:
		return field{name: "meta nfproto", implied: true}
	case expr.MetaKeyPROTOCOL:
		return field{name: "meta protocol", implied: true}
	case expr.MetaKeyIIFNAME:
		return field{name: "iifname", text: nameText}
	case expr.MetaKeyOIFNAME:
		return field{name: "oifname", text: nameText}
	}
	names := map[expr.MetaKey]string{expr.MetaKeyMARK: "mark", expr.MetaKeyPRIORITY: "priority",
		expr.MetaKeyIIF: "iif", expr.MetaKeyOIF: "oif", expr.MetaKeySKUID: "skuid",
		expr.MetaKeyPKTTYPE: "pkttype", expr.MetaKeyNFTRACE: "nftrace", expr.MetaKeyCGROUP: "cgroup"}
	name, ok := names[k]
	if !ok {
		name = fmt.Sprintf("(key %d)", k)
	}
	return field{name: "meta " + name, text: numberText}
}

// ctField returns a key of the expression ct.
func ctField(k expr.CtKey) field {
	switch k {
	case expr.CtKeySTATE:
		return field{name: "ct state", flags: stateText}
	case expr.CtKeySTATUS:
		return field{name: "ct status", flags: statusText}
	case expr.CtKeyPROTOCOL:
		return field{name: "ct protocol", text: protocolText}
	}
	names := map[expr.CtKey]string{expr.CtKeyMARK: "mark", expr.CtKeyDIRECTION: "direction",
		expr.CtKeyZONE: "zone", expr.CtKeyLABELS: "label", expr.CtKeyPROTODST: "proto-dst"}
	name, ok := names[k]
	if !ok {
		name = fmt.Sprintf("(key %d)", k)
	}
	return field{name: "ct " + name, text: numberText}
}

func stateText(mask []byte) string {
	return bitNames(mask, map[uint32]string{expr.CtStateBitINVALID: "invalid",
		expr.CtStateBitESTABLISHED: "established", expr.CtStateBitRELATED: "related",
		expr.CtStateBitNEW: "new", expr.CtStateBitUNTRACKED: "untracked"})
}

func statusText(mask []byte) string {
	// From enum ip_conntrack_status of linux/netfilter/nf_conntrack_common.h.
	return bitNames(mask, map[uint32]string{1 << 0: "expected", 1 << 1: "seen-reply", 1 << 2: "assured",
		1 << 3: "confirmed", 1 << 4: "snat", 1 << 5: "dnat", 1 << 9: "dying"})
}

func bitNames(mask []byte, names map[uint32]string) string {
	if len(mask) != 4 {
		return fmt.Sprintf("0x%x", mask)
	}
	var list []string
	for m := binary.NativeEndian.Uint32(mask); m != 0; m &= m - 1 {
		name, ok := names[m&-m]
		if !ok {
			name = fmt.Sprintf("0x%x", m&-m)
		}
		list = append(list, name)
	}
	return strings.Join(list, ",")
}

// payloadField returns a field of a header.
func (w *words) payloadField(family uint8, p expr.Payload) field {
	type place struct{ offset, size uint32 }
	at := place{p.Offset, p.Len}
	switch p.Base {
	case expr.PayloadBaseTransportHeader:
		header := w.protocol
		if header == "" {
			header = "th"
		}
		switch at {
		case place{0, 2}:
			return field{name: header + " sport", text: portText}
		case place{2, 2}:
			return field{name: header + " dport", text: portText}
		}
	case expr.PayloadBaseNetworkHeader:
		// In an inet table the field itself says of which family it is.
		switch {
		case at == place{9, 1}:
			return field{name: "ip protocol", text: protocolText, protocol: true}
		case at == place{6, 1} && family == unix.NFPROTO_IPV6:
			return field{name: "ip6 nexthdr", text: protocolText, protocol: true}
		case at.offset == 12 && at.size <= 4:
			return field{name: "ip saddr", size: 4, text: addrText4}
		case at.offset == 16 && at.size <= 4:
			return field{name: "ip daddr", size: 4, text: addrText4}
		case at.offset == 8 && at.size <= 16:
			return field{name: "ip6 saddr", size: 16, text: addrText6}
		case at.offset == 24 && at.size <= 16:
			return field{name: "ip6 daddr", size: 16, text: addrText6}
		}
	}
	return field{name: fmt.Sprintf("@%s,%d,%d", baseName(p.Base), p.Offset*8, p.Len*8), size: int(p.Len)}
}

func baseName(b expr.PayloadBase) string {
	switch b {
	case expr.PayloadBaseLLHeader:
		return "ll"
	case expr.PayloadBaseNetworkHeader:
		return "nh"
	}
	return "th"
}

func numgenField(n expr.Numgen) field {
	name := fmt.Sprintf("numgen random mod %d", n.Modulus)
	if n.Type == unix.NFT_NG_INCREMENTAL {
		name = fmt.Sprintf("numgen inc mod %d", n.Modulus)
	}
	if n.Offset != 0 {
		name += fmt.Sprintf(" offset %d", n.Offset)
	}
	return field{name: name}
}

func fibField(f expr.Fib) field {
	from := "daddr"
	if f.FlagSADDR {
		from = "saddr"
	}
	switch {
	case f.ResultADDRTYPE:
		return field{name: "fib " + from + " type", text: routeText}
	case f.ResultOIFNAME:
		return field{name: "fib " + from + " oifname", text: nameText}
	}
	return field{name: "fib " + from + " oif", text: numberText}
}

func routeText(v []byte) string {
	if len(v) == 4 && binary.NativeEndian.Uint32(v) == unix.RTN_LOCAL {
		return "local"
	}
	return numberText(v)
}
