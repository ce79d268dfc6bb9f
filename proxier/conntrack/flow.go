package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/netfilter"
	"github.com/nftproxy/nftproxy/rules"
)

// flow is an entry of the connection tracking table.
type flow struct {
	protocol rules.Protocol
	frontend netip.AddrPort // where the client sends to
	backend  netip.AddrPort // where the answers come from; the frontend, if that was not translated

	// What names it to the kernel, as the kernel wrote it; parts of the datagram.
	tuple, zone, id []byte
}

func parseFlow(attributes []byte) flow {
	var f flow
	for typ, v := range netfilter.Attrs(attributes) {
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

func parseTuple(v []byte) (protocol rules.Protocol, src, dst netip.AddrPort) {
	var srcAddr, dstAddr netip.Addr
	var srcPort, dstPort uint16
	for typ, v := range netfilter.Attrs(v) {
		switch typ {
		case ctaTupleIP:
			for typ, v := range netfilter.Attrs(v) {
				switch typ {
				case ctaIPv4Src, ctaIPv6Src:
					srcAddr, _ = netip.AddrFromSlice(v)
				case ctaIPv4Dst, ctaIPv6Dst:
					dstAddr, _ = netip.AddrFromSlice(v)
				}
			}
		case ctaTupleProto:
			for typ, v := range netfilter.Attrs(v) {
				switch {
				case typ == ctaProtoNum && len(v) == 1:
					protocol = rules.Protocol(v[0])
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
	family   rules.Family
	protocol rules.Protocol // zero: every flow of the family
	addr     netip.Addr     // of the frontend; not valid: any
	port     uint16         // of the frontend; zero: any
}

// append adds the filter to the request for a dump.
//
// The kernel's comparison of IPv6 addresses is the wrong way round, it selects all flows but those asked for (seen on
// 6.18), so they are left to us. It does not compare the ports of SCTP, which does no harm here.
func (f filter) append(p []byte) []byte {
	if f.protocol == 0 {
		return p
	}
	flags := uint32(filterProto)
	if f.port != 0 {
		flags |= filterDstPort
	}
	if f.addr.Is4() {
		flags |= filterDst
	}
	to := netip.AddrPortFrom(f.addr, f.port)
	p = appendTuple(p, ctaTupleOrig, f.protocol, to, to)
	return appendNest(p, ctaFilter, func(p []byte) []byte {
		return appendAttr(p, ctaFilterOrigFlags, binary.NativeEndian.AppendUint32(nil, flags)...)
	})
}

// dump calls each with every flow of the family that the filter does not leave out, of all zones. It is valid
// during the call only; an error of each ends the dump.
func (s *socket) dump(f filter, each func(*flow) error) error {
	p := f.append(appendHeader(nil, msgGet, unix.NLM_F_DUMP, f.family))
	setLength(p, 0)
	if err := s.send(p); err != nil {
		return err
	}
	var flow flow
	for {
		datagram, err := netfilter.Receive(s.fd, s.buf)
		if err != nil {
			return err
		}
		for m := range netfilter.Messages(datagram) {
			if m.Type == unix.NLMSG_DONE || m.Type == unix.NLMSG_ERROR {
				if errno := errno(m); errno != 0 {
					return errno
				}
				return nil
			}
			if len(m.Payload) < netfilter.HeaderSize {
				return fmt.Errorf("answer of type %#x, %d bytes: %w", m.Type, len(m.Payload), unix.EBADMSG)
			}
			flow = parseFlow(m.Payload[netfilter.HeaderSize:])
			if err := each(&flow); err != nil {
				return err
			}
		}
	}
}

// batchSize is how many flows are deleted by one system call: an answer to each of them fits the receive buffer.
const batchSize = 128

// deleter deletes flows one by one, many with one system call.
type deleter struct {
	socket  *socket
	family  rules.Family
	batch   []byte // requests that were not sent yet
	pending int    // their number
	deleted int
	refused int
	reason  error // of the refusal that came last
}

// add deletes a flow, now or with the next flush. The flow's identity goes with the request, so that another one
// that has taken its place meanwhile stays.
func (d *deleter) add(f *flow) error {
	// Without a tuple the kernel would take the request for one to delete every flow there is.
	if len(f.tuple) == 0 || len(f.id) == 0 {
		return fmt.Errorf("flow to %s without a name: %w", f.frontend, unix.EBADMSG)
	}
	start := len(d.batch)
	d.batch = appendHeader(d.batch, msgDelete, 0, d.family)
	d.batch = appendAttr(d.batch, ctaTupleOrig|unix.NLA_F_NESTED, f.tuple...)
	d.batch = appendAttr(d.batch, ctaID, f.id...)
	if f.zone != nil {
		d.batch = appendAttr(d.batch, ctaZone, f.zone...)
	}
	setLength(d.batch, start)
	if d.pending++; d.pending == batchSize {
		return d.flush()
	}
	return nil
}

// flush sends the pending requests. Only those that fail are answered.
func (d *deleter) flush() error {
	if d.pending == 0 {
		return nil
	}
	if err := d.socket.send(d.batch); err != nil {
		return err
	}
	d.deleted += d.pending
	d.batch, d.pending = d.batch[:0], 0
	for {
		datagram, err := netfilter.Receive(d.socket.fd, d.socket.buf)
		if errors.Is(err, unix.EAGAIN) {
			return nil
		}
		if err != nil {
			return err
		}
		for m := range netfilter.Messages(datagram) {
			d.deleted--
			if errno := errno(m); errno != unix.ENOENT { // else it ended by itself
				d.refused++
				d.reason = errno
			}
		}
	}
}
