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
	frontend netip.AddrPort // where the client sends to
	backend  netip.AddrPort // where the answers come from; the frontend, if that was not translated

	// What names it to the kernel, as the kernel wrote it; parts of the datagram.
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
		case ctaZone:
			f.zone = v
		case ctaID:
			f.id = v
		}
	}
	return f
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

// filter is what the kernel is asked to leave out of a dump. Linux before 5.8 does not know such filters and sends
// every flow of the family, so a dump is always of more flows than those asked for.
type filter struct {
	family   service.Family
	protocol service.Protocol // zero: every flow of the family
	addr     netip.Addr       // of the frontend; not valid: any
	port     uint16           // of the frontend; zero: any
}

// append adds the filter to the request for a dump.
//
// The kernel's comparison of IPv6 addresses is inverted, it selects all flows but those asked for (seen on 6.18), so
// we compare them ourselves. It does not compare the ports of SCTP, which does no harm here.
func (f filter) append(w *netlink.Writer) {
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

// dump calls each with every flow of the family that the filter does not leave out, of all zones. It is valid
// during the call only; an error of each ends the dump.
func dump(s *netlink.Socket, f filter, each func(*flow) error) error {
	var w netlink.Writer
	w.Message(unix.NFNL_SUBSYS_CTNETLINK, msgGet, unix.NLM_F_DUMP, f.family.Number())
	f.append(&w)
	var flow flow
	return s.Request(&w, func(m netlink.Message) error {
		flow = parseFlow(m.Attributes())
		return each(&flow)
	})
}

// batchSize is how many flows are deleted by one system call: an answer to each of them fits the receive buffer.
const batchSize = 128

// deleter deletes flows one by one, many with one system call.
type deleter struct {
	socket  *netlink.Socket
	family  service.Family
	batch   netlink.Writer // requests that were not sent yet
	deleted int
	refused int
	reason  error // of the last refusal
}

// add deletes a flow, now or with the next flush. The flow's identity goes with the request, so that another flow
// that has taken its place meanwhile stays.
func (d *deleter) add(f *flow) error {
	// Without a tuple the kernel would take the request for one to delete every flow there is.
	if len(f.tuple) == 0 || len(f.id) == 0 {
		return fmt.Errorf("flow to %s without a name: %w", f.frontend, unix.EBADMSG)
	}
	d.batch.Message(unix.NFNL_SUBSYS_CTNETLINK, msgDelete, 0, d.family.Number())
	d.batch.Bytes(ctaTupleOrig|unix.NLA_F_NESTED, f.tuple)
	d.batch.Bytes(ctaID, f.id)
	if f.zone != nil {
		d.batch.Bytes(ctaZone, f.zone)
	}
	if d.batch.Len() == batchSize {
		return d.flush()
	}
	return nil
}

// flush sends the pending requests. The kernel answers only those that fail.
func (d *deleter) flush() error {
	n := d.batch.Len()
	err := d.socket.Send(&d.batch, func(e *netlink.Error) {
		d.deleted--
		if e.Errno != unix.ENOENT { // otherwise it ended by itself
			d.refused++
			d.reason = e
		}
	})
	d.batch.Reset()
	if err == nil {
		d.deleted += n
	}
	return err
}
