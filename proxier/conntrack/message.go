package conntrack

import (
	"net/netip"

	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Messages and attributes of ctnetlink, from linux/netfilter/nfnetlink_conntrack.h.
const (
	msgNew    = 0 // IPCTNL_MSG_CT_NEW: create or change
	msgGet    = 1 // IPCTNL_MSG_CT_GET
	msgDelete = 2 // IPCTNL_MSG_CT_DELETE

	ctaTupleOrig     = 1
	ctaTupleReply    = 2
	ctaStatus        = 3
	ctaProtoInfo     = 4
	ctaTimeout       = 7
	ctaCountersOrig  = 9
	ctaCountersReply = 10
	ctaID            = 12
	ctaZone          = 18
	ctaFilter        = 25

	ctaProtoInfoState = 1 // CTA_PROTOINFO_TCP_STATE, CTA_PROTOINFO_SCTP_STATE

	ctaCountersPackets = 1
	ctaCountersBytes   = 2

	statusAnswered     = 1 << 1  // IPS_SEEN_REPLY
	statusAssured      = 1 << 2  // IPS_ASSURED: packets in both directions, for more than two seconds
	statusTranslated   = 1 << 5  // IPS_DST_NAT
	statusFixedTimeout = 1 << 10 // IPS_FIXED_TIMEOUT

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

	// Flags for the parts of the original tuple that CTA_FILTER compares.
	filterDst     = 1 << 1
	filterProto   = 1 << 3
	filterDstPort = 1 << 5
)

// appendTuple appends one direction of a flow, without addresses that are not valid.
func appendTuple(w *netlink.Writer, typ uint16, proto service.Protocol, src, dst netip.AddrPort) {
	srcType, dstType := uint16(ctaIPv4Src), uint16(ctaIPv4Dst)
	if service.FamilyOf(src.Addr()) == service.IPv6 {
		srcType, dstType = ctaIPv6Src, ctaIPv6Dst
	}
	tuple := w.Nest(typ)
	if src.Addr().IsValid() {
		addrs := w.Nest(ctaTupleIP)
		w.Bytes(srcType, src.Addr().AsSlice())
		w.Bytes(dstType, dst.Addr().AsSlice())
		w.EndNest(addrs)
	}
	protocol := w.Nest(ctaTupleProto)
	w.U8(ctaProtoNum, uint8(proto))
	w.U16(ctaProtoSrcPort, src.Port())
	w.U16(ctaProtoDstPort, dst.Port())
	w.EndNest(protocol)
	w.EndNest(tuple)
}
