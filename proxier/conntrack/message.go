package conntrack

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/netfilter"
	"github.com/nftproxy/nftproxy/rules"
)

// Messages and attributes of ctnetlink, from linux/netfilter/nfnetlink_conntrack.h.
const (
	msgGet    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1 // IPCTNL_MSG_CT_GET
	msgDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2 // IPCTNL_MSG_CT_DELETE

	ctaTupleOrig  = 1
	ctaTupleReply = 2
	ctaID         = 12
	ctaZone       = 18
	ctaFilter     = 25

	ctaTupleIP    = 1
	ctaTupleProto = 2

	ctaIPv4Src = 1
	ctaIPv4Dst = 2
	ctaIPv6Src = 3
	ctaIPv6Dst = 4

	ctaProtoNum     = 1
	ctaProtoSrcPort = 2
	ctaProtoDstPort = 3

	ctaFilterOrigFlags = 1

	// What of the original tuple CTA_FILTER compares.
	filterDst     = 1 << 1
	filterProto   = 1 << 3
	filterDstPort = 1 << 5
)

// errno returns the result that an NLMSG_ERROR or NLMSG_DONE reports; zero is success.
func errno(m netfilter.Message) unix.Errno {
	if len(m.Payload) < 4 {
		return unix.EBADMSG
	}
	return unix.Errno(-int32(binary.NativeEndian.Uint32(m.Payload)))
}

// appendHeader begins a message whose length setLength fills in. Sequence numbers are not used: what is asked is
// answered before anything else is.
func appendHeader(p []byte, typ, flags uint16, family rules.Family) []byte {
	p = append(p, 0, 0, 0, 0)
	p = binary.NativeEndian.AppendUint16(p, typ)
	p = binary.NativeEndian.AppendUint16(p, unix.NLM_F_REQUEST|flags)
	p = append(p, 0, 0, 0, 0, 0, 0, 0, 0) // sequence number and port
	return append(p, addressFamily(family), unix.NFNETLINK_V0, 0, 0)
}

func addressFamily(f rules.Family) byte {
	if f == rules.IPv4 {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// setLength ends the message that starts at p[start].
func setLength(p []byte, start int) {
	binary.NativeEndian.PutUint32(p[start:], uint32(len(p)-start))
}

func appendAttr(p []byte, typ uint16, value ...byte) []byte {
	p = binary.NativeEndian.AppendUint16(p, uint16(unix.SizeofNlAttr+len(value)))
	p = binary.NativeEndian.AppendUint16(p, typ)
	p = append(p, value...)
	for len(p)%unix.NLMSG_ALIGNTO != 0 {
		p = append(p, 0)
	}
	return p
}

// appendNest adds an attribute that holds what inner adds.
func appendNest(p []byte, typ uint16, inner func([]byte) []byte) []byte {
	start := len(p)
	p = inner(appendAttr(p, typ|unix.NLA_F_NESTED))
	binary.NativeEndian.PutUint16(p[start:], uint16(len(p)-start))
	return p
}

// appendTuple adds one direction of a flow; addresses that are not valid are left out.
func appendTuple(p []byte, typ uint16, proto rules.Protocol, src, dst netip.AddrPort) []byte {
	srcType, dstType := uint16(ctaIPv4Src), uint16(ctaIPv4Dst)
	if rules.FamilyOf(src.Addr()) == rules.IPv6 {
		srcType, dstType = ctaIPv6Src, ctaIPv6Dst
	}
	return appendNest(p, typ, func(p []byte) []byte {
		if src.Addr().IsValid() {
			p = appendNest(p, ctaTupleIP, func(p []byte) []byte {
				p = appendAttr(p, srcType, src.Addr().AsSlice()...)
				return appendAttr(p, dstType, dst.Addr().AsSlice()...)
			})
		}
		return appendNest(p, ctaTupleProto, func(p []byte) []byte {
			p = appendAttr(p, ctaProtoNum, byte(proto))
			p = appendAttr(p, ctaProtoSrcPort, byte(src.Port()>>8), byte(src.Port()))
			return appendAttr(p, ctaProtoDstPort, byte(dst.Port()>>8), byte(dst.Port()))
		})
	})
}
