package bytecode

import (
	"encoding/binary"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Packet is the first packet of a connection.
type Packet struct {
	Src, Dst  netip.Addr
	Protocol  uint8
	Port      uint16 // destination
	Interface string // on which it arrived; "" for a packet of the host itself
	// Socket says that the packet has a socket in prerouting: another proxy took it (TPROXY).
	Socket         bool
	Mark, Priority uint32 // that it comes with
}

// Verdict is how the rules leave a connection.
type Verdict uint8

const (
	Untouched Verdict = iota
	Translated
	Refused
	Dropped
)

// String returns the verdict in one word.
func (v Verdict) String() string {
	return [...]string{"untouched", "endpoint", "refused", "dropped"}[v]
}

// Outcome is one way in which a connection can go. Outcomes are comparable.
type Outcome struct {
	Verdict     Verdict
	Endpoint    netip.AddrPort // of Translated
	Masqueraded bool
	Reset       bool          // Refused by a reset, not by an ICMP error
	Remembered  time.Duration // how long a dynamic map remembers the client; 0: not
	// Mark and Priority are those that the packet leaves the rules with.
	Mark, Priority uint32
}

// sourcePort is that of all packets: no rule of a service proxy depends on it, except by a hash.
const sourcePort = 40000

// header has the bytes that expressions load.
type header struct {
	net       [40]byte
	netSize   int
	transport [8]byte
}

func newHeader(p *Packet) (h header) {
	if p.Dst.Is4() {
		h.netSize = 20
		h.net[0], h.net[9] = 0x45, p.Protocol
		src := p.Src.As4()
		copy(h.net[12:], src[:])
	} else {
		h.netSize = 40
		h.net[0], h.net[6] = 0x60, p.Protocol
		src := p.Src.As16()
		copy(h.net[8:], src[:])
	}
	binary.BigEndian.PutUint16(h.transport[0:], sourcePort)
	h.setDestination(p.Dst, p.Port)
	return h
}

func (h *header) setDestination(dst netip.Addr, port uint16) {
	if dst.Is4() {
		b := dst.As4()
		copy(h.net[16:], b[:])
	} else {
		b := dst.As16()
		copy(h.net[24:], b[:])
	}
	binary.BigEndian.PutUint16(h.transport[2:], port)
}

// family returns the family of the tables that the packet meets.
func (p *Packet) family() uint8 {
	if p.Dst.Is4() {
		return unix.NFPROTO_IPV4
	}
	return unix.NFPROTO_IPV6
}
