package conntrack

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/service"
)

// flow is an entry of the connection tracking table.
type flow struct {
	protocol service.Protocol
	frontend netip.AddrPort // the destination of the client's packets
	backend  netip.AddrPort // the source of the answers; the frontend, if it was not translated
	status   uint32
	timeout  uint32 // seconds left
	state    uint8  // of TCP and SCTP

	counted        bool   // the kernel counts its packets
	packets, bytes uint64 // in both directions

	// tuple, zone and id identify the flow to the kernel, in the kernel's encoding. They are parts of the
	// datagram.
	tuple, zone, id []byte
}

func parseFlow(attributes []byte) flow {
	var f flow
	for typ, v := range netlink.Attrs(attributes) {
		switch typ {
		case ctaTupleOrig:
			f.tuple = v
			f.protocol, _, f.frontend = parseTuple(v)
		case ctaTupleReply:
			_, f.backend, _ = parseTuple(v)
		case ctaStatus:
			f.status = number(v)
		case ctaTimeout:
			f.timeout = number(v)
		case ctaProtoInfo:
			f.state = parseState(v)
		case ctaCountersOrig, ctaCountersReply:
			f.counted = true
			f.addCounters(v)
		case ctaZone:
			f.zone = v
		case ctaID:
			f.id = v
		}
	}
	return f
}

// parseState returns the state of a TCP connection or an SCTP association.
func parseState(v []byte) uint8 {
	for _, v := range netlink.Attrs(v) { // one, for the protocol
		for typ, v := range netlink.Attrs(v) {
			if typ == ctaProtoInfoState && len(v) == 1 {
				return v[0]
			}
		}
	}
	return 0
}

// addCounters adds the counters of one direction.
func (f *flow) addCounters(v []byte) {
	for typ, v := range netlink.Attrs(v) {
		switch {
		case typ == ctaCountersPackets && len(v) == 8:
			f.packets += binary.BigEndian.Uint64(v)
		case typ == ctaCountersBytes && len(v) == 8:
			f.bytes += binary.BigEndian.Uint64(v)
		}
	}
}

// number returns the value of an attribute of 32 bits, and 0 for any other attribute.
func number(v []byte) uint32 {
	if len(v) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(v)
}

func parseTuple(v []byte) (protocol service.Protocol, src, dst netip.AddrPort) {
	var srcAddr, dstAddr netip.Addr
	var srcPort, dstPort uint16
	for typ, v := range netlink.Attrs(v) {
		switch typ {
		case ctaTupleIP:
			for typ, v := range netlink.Attrs(v) {
				switch typ {
				case ctaIPv4Src, ctaIPv6Src:
					srcAddr, _ = netip.AddrFromSlice(v)
				case ctaIPv4Dst, ctaIPv6Dst:
					dstAddr, _ = netip.AddrFromSlice(v)
				}
			}
		case ctaTupleProto:
			for typ, v := range netlink.Attrs(v) {
				switch {
				case typ == ctaProtoNum && len(v) == 1:
					protocol = service.Protocol(v[0])
				case typ == ctaProtoSrcPort && len(v) == 2:
					srcPort = binary.BigEndian.Uint16(v)
				case typ == ctaProtoDstPort && len(v) == 2:
					dstPort = binary.BigEndian.Uint16(v)
				}
			}
		}
	}
	return protocol, netip.AddrPortFrom(srcAddr, srcPort), netip.AddrPortFrom(dstAddr, dstPort)
}

// filter selects the flows that the kernel sends in a dump. Linux before 5.8 ignores it and sends every
// flow of the family, and before 5.15 it ignores the status, so the receiver of a dump must expect other
// flows too.
type filter struct {
	family   service.Family
	protocol service.Protocol // 0: every flow of the family
	addr     netip.Addr       // of the frontend; not valid: any
	port     uint16           // of the frontend; 0: any
	status   uint32           // bits that the flow has, and maybe others
}

// append adds the filter to the request for a dump.
//
// The filter leaves IPv6 addresses out, because the kernel's comparison of them is inverted: it selects all
// flows except the requested ones (seen on 6.18). The kernel does not compare the ports of SCTP, which does
// no harm here.
func (f filter) append(w *netlink.Writer) {
	if f.status != 0 {
		w.U32(ctaStatus, f.status)
	}
	if f.protocol == 0 {
		return
	}
	flags := uint32(filterProto)
	if f.port != 0 {
		flags |= filterDstPort
	}
	if f.addr.Is4() {
		flags |= filterDst
	}
	to := netip.AddrPortFrom(f.addr, f.port)
	appendTuple(w, ctaTupleOrig, f.protocol, to, to)
	nest := w.Nest(ctaFilter)
	w.Bytes(ctaFilterOrigFlags, binary.NativeEndian.AppendUint32(nil, flags))
	w.EndNest(nest)
}

// dump calls each with every flow that passes the filter, in all zones. The flow is valid during the call
// only. An error of each ends the dump.
func dump(s *netlink.Socket, f filter, each func(*flow) error) error {
	var w netlink.Writer
	w.Message(unix.NFNL_SUBSYS_CTNETLINK, msgGet, unix.NLM_F_DUMP, f.family.Number())
	f.append(&w)
	var flow flow
	return s.Request(&w, func(attributes []byte) error {
		flow = parseFlow(attributes)
		return each(&flow)
	})
}

// batchSize is the number of flows to change with one system call. The receive buffer holds an answer for
// each.
const batchSize = 128

// requests are requests to change flows, many in one system call.
type requests struct {
	socket  *netlink.Socket
	family  service.Family
	batch   netlink.Writer // pending requests
	done    int
	refused int
	reason  error // of the last refusal
}

// delete deletes a flow, now or with the next flush. The request includes the flow's ID, so that the kernel
// does not delete another flow that has the same tuple meanwhile.
func (r *requests) delete(f *flow) error {
	// A request without a tuple makes the kernel delete every flow.
	if len(f.tuple) == 0 || len(f.id) == 0 {
		return fmt.Errorf("delete flow to %s: the kernel sent no tuple or ID: %w", f.frontend, unix.EBADMSG)
	}
	r.message(msgDelete, f)
	r.batch.Bytes(ctaID, f.id)
	return r.flushFull()
}

// expire lets a flow end in that many seconds if it has no packet until then, now or with the next flush.
func (r *requests) expire(f *flow, seconds uint32) error {
	r.message(msgNew, f)
	r.batch.U32(ctaTimeout, seconds)
	return r.flushFull()
}

// message begins a request about a flow.
func (r *requests) message(typ uint16, f *flow) {
	r.batch.Message(unix.NFNL_SUBSYS_CTNETLINK, typ, 0, r.family.Number())
	r.batch.Bytes(ctaTupleOrig|unix.NLA_F_NESTED, f.tuple)
	if f.zone != nil {
		r.batch.Bytes(ctaZone, f.zone)
	}
}

func (r *requests) flushFull() error {
	if r.batch.Len() < batchSize {
		return nil
	}
	return r.flush()
}

// flush sends the pending requests. The kernel answers only those that it refuses.
func (r *requests) flush() error {
	n := r.batch.Len()
	err := r.socket.Send(&r.batch, func(e *netlink.Error) {
		n--
		if e.Errno != unix.ENOENT { // otherwise the flow ended by itself
			r.refused++
			r.reason = e
		}
	})
	r.batch.Reset()
	if err != nil {
		return err
	}
	r.done += n
	return nil
}

// refusal returns an error if the kernel refused requests.
func (r *requests) refusal(what string) error {
	if r.refused == 0 {
		return nil
	}
	return fmt.Errorf("the kernel refused %d %s: %w", r.refused, what, r.reason)
}
