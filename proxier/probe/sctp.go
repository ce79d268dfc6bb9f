package probe

import (
	"encoding/binary"
	"hash/crc32"
)

// The INIT is made here, and not by a socket of SCTP: the kernel may have none, and would load its module for
// one. It is the same packet (RFC 9260, section 3.3.2). A server keeps no state for it until the COOKIE ECHO,
// which never comes.
const (
	sctpHeader    = 12 // ports, verification tag, checksum
	sctpInitSize  = 20
	sctpTypeInit  = 1
	sctpTypeAck   = 2
	sctpTypeAbort = 6
)

// sctpInit returns an INIT. tag is what the answer has as its verification tag.
func sctpInit(source, destination uint16, tag uint32) []byte {
	p := make([]byte, sctpHeader+sctpInitSize)
	binary.BigEndian.PutUint16(p, source)
	binary.BigEndian.PutUint16(p[2:], destination)
	chunk := p[sctpHeader:]
	chunk[0] = sctpTypeInit
	binary.BigEndian.PutUint16(chunk[2:], sctpInitSize)
	binary.BigEndian.PutUint32(chunk[4:], tag)
	binary.BigEndian.PutUint32(chunk[8:], 64<<10) // receiver window
	binary.BigEndian.PutUint16(chunk[12:], 1)     // outbound streams
	binary.BigEndian.PutUint16(chunk[14:], 1)     // inbound streams
	binary.BigEndian.PutUint32(chunk[16:], tag)   // the first sequence number may be any
	// The checksum is sent with its lowest byte first, and computed while it is zero.
	sum := crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli))
	binary.LittleEndian.PutUint32(p[8:], sum)
	return p
}

// receiveSCTP reports whether a packet answers the INIT. A raw socket gets the packets of all ports, and
// those of IPv4 with their IP header.
func (a *attempt) receiveSCTP(p []byte) bool {
	if a.to.Addr.Is4() && len(p) > 0 {
		p = p[min(len(p), int(p[0]&0xf)*4):]
	}
	if len(p) <= sctpHeader || binary.BigEndian.Uint16(p) != a.to.Port ||
		binary.BigEndian.Uint16(p[2:]) != a.result.Source.Port() || binary.BigEndian.Uint32(p[4:]) != a.tag {
		return false
	}
	switch p[sctpHeader] {
	case sctpTypeAck:
		a.result.Result, a.result.By = Answered, "INIT ACK"
	case sctpTypeAbort:
		a.result.Result, a.result.By = Refused, "ABORT"
	}
	return a.result.Result != ""
}
