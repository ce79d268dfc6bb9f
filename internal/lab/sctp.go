package lab

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"net"
	"net/netip"
)

// Without SCTP sockets in the kernel (association.go) the lab exchanges packets with one chunk (RFC 9260,
// section 3.3) over raw sockets. A request is an INIT and its INIT ACK; connection tracking needs no more to
// translate it. COOKIE ECHO and COOKIE ACK establish an association, and HEARTBEATs follow.
const (
	sctpInit         = 1
	sctpInitAck      = 2
	sctpHeartbeat    = 4
	sctpHeartbeatAck = 5
	sctpAbort        = 6
	sctpCookieEcho   = 10
	sctpCookieAck    = 11

	sctpStateCookie = 7 // the parameter of an INIT ACK with any content: it carries the greeting

	sctpCommonHeader = 12
	sctpChunkHeader  = 4
	sctpInitChunk    = 20
)

// sctpPacket has the fields of an SCTP packet with one chunk that the lab uses.
type sctpPacket struct {
	srcPort, dstPort uint16
	verificationTag  uint32
	chunk            byte   // its type
	initiateTag      uint32 // of INIT and INIT ACK
	data             []byte // the cookie of INIT ACK; the content of other chunks
}

func sctpNetwork(ip netip.Addr) string {
	if ip.Is4() {
		return "ip4:132"
	}
	return "ip6:132"
}

// encode returns the bytes of the packet.
func (p sctpPacket) encode() []byte {
	header := sctpChunkHeader
	if p.initial() {
		header = sctpInitChunk
		if len(p.data) > 0 {
			header += 4 // of the parameter
		}
	}
	length := header + len(p.data)
	// The chunk's length counts the padding between parameters, but not that of the last one.
	b := make([]byte, sctpCommonHeader+(length+3)/4*4)
	binary.BigEndian.PutUint16(b[0:], p.srcPort)
	binary.BigEndian.PutUint16(b[2:], p.dstPort)
	binary.BigEndian.PutUint32(b[4:], p.verificationTag)

	chunk := b[sctpCommonHeader:]
	chunk[0] = p.chunk
	binary.BigEndian.PutUint16(chunk[2:], uint16(length))
	if p.initial() {
		binary.BigEndian.PutUint32(chunk[4:], p.initiateTag)
		binary.BigEndian.PutUint32(chunk[8:], 65536) // receiver window
		binary.BigEndian.PutUint16(chunk[12:], 1)    // outbound streams
		binary.BigEndian.PutUint16(chunk[14:], 1)    // inbound streams
		binary.BigEndian.PutUint32(chunk[16:], p.initiateTag)
		if len(p.data) > 0 {
			binary.BigEndian.PutUint16(chunk[20:], sctpStateCookie)
			binary.BigEndian.PutUint16(chunk[22:], uint16(4+len(p.data)))
		}
	}
	copy(chunk[header:], p.data)
	binary.LittleEndian.PutUint32(b[8:], sctpChecksum(b))
	return b
}

// initial reports whether the chunk is an INIT or INIT ACK.
func (p sctpPacket) initial() bool { return p.chunk == sctpInit || p.chunk == sctpInitAck }

// decodeSCTP returns the packet in b, and false if it is damaged.
func decodeSCTP(b []byte) (sctpPacket, bool) {
	if len(b) < sctpCommonHeader+sctpChunkHeader || binary.LittleEndian.Uint32(b[8:]) != sctpChecksum(b) {
		return sctpPacket{}, false
	}
	chunk := b[sctpCommonHeader:]
	p := sctpPacket{
		srcPort:         binary.BigEndian.Uint16(b[0:]),
		dstPort:         binary.BigEndian.Uint16(b[2:]),
		verificationTag: binary.BigEndian.Uint32(b[4:]),
		chunk:           chunk[0],
	}
	length := int(binary.BigEndian.Uint16(chunk[2:]))
	if length < sctpChunkHeader || length > len(chunk) {
		return sctpPacket{}, false
	}
	if !p.initial() {
		if length > sctpChunkHeader {
			p.data = chunk[sctpChunkHeader:length]
		}
		return p, true
	}
	if length < sctpInitChunk {
		return sctpPacket{}, false
	}
	p.initiateTag = binary.BigEndian.Uint32(chunk[4:])
	param := chunk[sctpInitChunk:length]
	if len(param) > 4 && binary.BigEndian.Uint16(param) == sctpStateCookie {
		p.data = param[4:]
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

// sctpPeer is the client of an association.
type sctpPeer struct {
	addr netip.Addr
	port uint16
}

// serveSCTP answers the packets for port, until conn is closed. It aborts associations that it does not have.
func serveSCTP(conn *net.IPConn, port uint16, name string) {
	buf := make([]byte, 2048)
	tags := map[sctpPeer][2]uint32{} // the tags of the client and of the server
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
		if !ok || !fromOK || in.dstPort != port {
			continue
		}
		peer := sctpPeer{seen, in.srcPort}
		out := sctpPacket{srcPort: in.dstPort, dstPort: in.srcPort, data: greeting(name, seen)}
		switch in.chunk {
		case sctpInit:
			tags[peer] = [2]uint32{in.initiateTag, sctpTag()}
			out.chunk, out.initiateTag = sctpInitAck, tags[peer][1]
		case sctpCookieEcho:
			out.chunk, out.data = sctpCookieAck, nil
		case sctpHeartbeat:
			out.chunk = sctpHeartbeatAck
		default:
			continue
		}
		out.verificationTag = tags[peer][0]
		if in.chunk != sctpInit && (tags[peer][1] != in.verificationTag || in.verificationTag == 0) {
			// An abort of an unknown association carries the tag of the packet (RFC 9260, section 8.4).
			out.chunk, out.data, out.verificationTag = sctpAbort, nil, in.verificationTag
		}
		conn.WriteToIP(out.encode(), from)
	}
}

// askSCTP sends an INIT over conn, which is connected, and returns the greeting of the server that answers
// before the deadline. An aborted association counts as refused.
func askSCTP(conn *net.IPConn, srcPort, dstPort uint16) ([]byte, error) {
	init := sctpPacket{srcPort: srcPort, dstPort: dstPort, chunk: sctpInit, initiateTag: sctpTag()}
	in, err := exchangeSCTP(conn, init, init.initiateTag, sctpInitAck)
	return in.data, err
}

// exchangeSCTP sends a packet over conn, which is connected, and returns the answer with that chunk. tag is
// the client's own verification tag.
func exchangeSCTP(conn *net.IPConn, out sctpPacket, tag uint32, want byte) (sctpPacket, error) {
	if _, err := conn.Write(out.encode()); err != nil && !rejectedLocally(err) {
		return sctpPacket{}, err
	}
	buf := make([]byte, 2048)
	for {
		n, _, err := conn.ReadFromIP(buf)
		if err != nil {
			return sctpPacket{}, err
		}
		in, ok := decodeSCTP(buf[:n])
		if !ok || in.srcPort != out.dstPort || in.dstPort != out.srcPort {
			continue // for another request
		}
		reflected := in.chunk == sctpAbort && in.verificationTag == out.verificationTag
		if in.verificationTag != tag && !reflected {
			continue
		}
		switch in.chunk {
		case want:
			return in, nil
		case sctpAbort:
			return sctpPacket{}, errAborted
		}
	}
}

// sctpTag returns a verification tag: any number except zero.
func sctpTag() uint32 { return rand.Uint32N(1<<32-1) + 1 }
