package lab

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"net"
	"net/netip"
)

// The lab does not need SCTP sockets in the kernel: it exchanges the first two packets of an association,
// INIT and INIT ACK (RFC 9260, sections 3.3.2 and 3.3.3), over raw sockets. Connection tracking needs no more
// to translate it.
const (
	sctpInit    = 1
	sctpInitAck = 2
	sctpAbort   = 6

	sctpStateCookie = 7 // the parameter of an INIT ACK with any content: it carries the greeting

	sctpCommonHeader = 12
	sctpInitChunk    = 20
)

// sctpPacket has the fields of an SCTP packet with one chunk that the lab uses.
type sctpPacket struct {
	srcPort, dstPort uint16
	verificationTag  uint32
	chunk            byte   // its type
	initiateTag      uint32 // of INIT and INIT ACK
	cookie           []byte // of INIT ACK
}

func sctpNetwork(ip netip.Addr) string {
	if ip.Is4() {
		return "ip4:132"
	}
	return "ip6:132"
}

// encode returns the packet of an INIT or INIT ACK.
func (p sctpPacket) encode() []byte {
	length := sctpInitChunk
	if len(p.cookie) > 0 {
		length += 4 + len(p.cookie)
	}
	// The chunk's length counts the padding between parameters, but not that of the last one.
	b := make([]byte, sctpCommonHeader+(length+3)/4*4)
	binary.BigEndian.PutUint16(b[0:], p.srcPort)
	binary.BigEndian.PutUint16(b[2:], p.dstPort)
	binary.BigEndian.PutUint32(b[4:], p.verificationTag)

	chunk := b[sctpCommonHeader:]
	chunk[0] = p.chunk
	binary.BigEndian.PutUint16(chunk[2:], uint16(length))
	binary.BigEndian.PutUint32(chunk[4:], p.initiateTag)
	binary.BigEndian.PutUint32(chunk[8:], 65536) // receiver window
	binary.BigEndian.PutUint16(chunk[12:], 1)    // outbound streams
	binary.BigEndian.PutUint16(chunk[14:], 1)    // inbound streams
	binary.BigEndian.PutUint32(chunk[16:], p.initiateTag)
	if len(p.cookie) > 0 {
		binary.BigEndian.PutUint16(chunk[20:], sctpStateCookie)
		binary.BigEndian.PutUint16(chunk[22:], uint16(4+len(p.cookie)))
		copy(chunk[24:], p.cookie)
	}
	binary.LittleEndian.PutUint32(b[8:], sctpChecksum(b))
	return b
}

// decodeSCTP returns the packet in b, and false if it is damaged.
func decodeSCTP(b []byte) (sctpPacket, bool) {
	if len(b) < sctpCommonHeader+4 || binary.LittleEndian.Uint32(b[8:]) != sctpChecksum(b) {
		return sctpPacket{}, false
	}
	chunk := b[sctpCommonHeader:]
	p := sctpPacket{
		srcPort:         binary.BigEndian.Uint16(b[0:]),
		dstPort:         binary.BigEndian.Uint16(b[2:]),
		verificationTag: binary.BigEndian.Uint32(b[4:]),
		chunk:           chunk[0],
	}
	if p.chunk != sctpInit && p.chunk != sctpInitAck {
		return p, true
	}
	length := int(binary.BigEndian.Uint16(chunk[2:]))
	if length < sctpInitChunk || length > len(chunk) {
		return sctpPacket{}, false
	}
	p.initiateTag = binary.BigEndian.Uint32(chunk[4:])
	param := chunk[sctpInitChunk:length]
	if len(param) > 4 && binary.BigEndian.Uint16(param) == sctpStateCookie {
		p.cookie = param[4:]
	}
	return p, true
}

// sctpChecksum returns the CRC32c of b as if its checksum field were zero.
func sctpChecksum(b []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(0, table, b[:8])
	sum = crc32.Update(sum, table, make([]byte, 4))
	return crc32.Update(sum, table, b[sctpCommonHeader:])
}

// serveSCTP answers each INIT for port, until conn is closed.
func serveSCTP(conn *net.IPConn, port uint16, name string) {
	buf := make([]byte, 2048)
	for {
		n, from, err := conn.ReadFromIP(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		in, ok := decodeSCTP(buf[:n])
		seen, fromOK := netip.AddrFromSlice(from.IP)
		if !ok || !fromOK || in.chunk != sctpInit || in.dstPort != port {
			continue
		}
		out := sctpPacket{
			srcPort: in.dstPort, dstPort: in.srcPort, verificationTag: in.initiateTag,
			chunk: sctpInitAck, initiateTag: sctpTag(), cookie: greeting(name, seen),
		}
		conn.WriteToIP(out.encode(), from)
	}
}

// askSCTP sends an INIT over conn, which is connected, and returns the greeting of the server that answers
// before the deadline. An aborted association counts as refused.
func askSCTP(conn *net.IPConn, srcPort, dstPort uint16) ([]byte, error) {
	init := sctpPacket{srcPort: srcPort, dstPort: dstPort, chunk: sctpInit, initiateTag: sctpTag()}
	if _, err := conn.Write(init.encode()); err != nil && !rejectedLocally(err) {
		return nil, err
	}
	buf := make([]byte, 2048)
	for {
		n, _, err := conn.ReadFromIP(buf)
		if err != nil {
			return nil, err
		}
		in, ok := decodeSCTP(buf[:n])
		if !ok || in.srcPort != dstPort || in.dstPort != srcPort || in.verificationTag != init.initiateTag {
			continue // for another request
		}
		switch in.chunk {
		case sctpInitAck:
			return in.cookie, nil
		case sctpAbort:
			return nil, errAborted
		}
	}
}

// sctpTag returns a verification tag: any number except zero.
func sctpTag() uint32 { return rand.Uint32N(1<<32-1) + 1 }
