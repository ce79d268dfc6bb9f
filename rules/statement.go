package rules

import "time"

// Statement is one statement of a rule. The interface is sealed: the text
// encoder here and the netlink encoder in proxier/nft switch over all kinds.
type Statement interface{ statement() }

// Rule is a list of statements, evaluated until one does not match.
type Rule []Statement

type (
	// Jump continues in another chain and comes back.
	Jump struct{ Chain string }
	// Drop drops the packet.
	Drop struct{}
	// Reject answers with ICMP port unreachable: a connected socket gets ECONNREFUSED.
	Reject struct{}
	// Reset answers TCP with a reset.
	Reset struct{}
	// Masquerade rewrites the source address and takes a random port, as two
	// nodes' proxies would otherwise pick the same.
	Masquerade struct{}

	// SetMark sets the bits of Mask in the packet mark.
	SetMark struct{ Mask uint32 }
	// ClearMark clears the bits of Mask, which must be set, in the packet mark.
	ClearMark struct{ Mask uint32 }
	// HasMark matches when a bit of Mask is set in the packet mark.
	HasMark struct{ Mask uint32 }

	// InSet matches when the fields are (not) in the set.
	InSet struct {
		Key []Field
		Set string
		Not bool
	}
	// Dispatch continues as the verdict map says for the fields, if it knows them.
	Dispatch struct {
		Key []Field
		Map string
	}
	// DNAT sends the connection to the address and port that the map has for the
	// fields, or to the map's address and Port if that is not 0. It does not match
	// what the map does not know.
	DNAT struct {
		Key  []Field
		Map  string
		Port uint16
	}
	// Remember maps the source address of the packet to its destination address
	// for the given time. What the map has for the source already stays, with its
	// time starting anew.
	Remember struct {
		Map     string
		Timeout time.Duration
	}

	// Translated matches connections with a translated destination.
	Translated struct{}
	// AddrLocal matches when the address (SrcAddr or DstAddr) is (not) the host's own.
	AddrLocal struct {
		Addr Field
		Not  bool
	}
	// Interface matches the name of the interface on which the packet came in.
	// A trailing * matches all names with that beginning. The host's own packets
	// came in on none.
	Interface struct {
		Name string
		Not  bool
	}
	// IsProtocol matches the transport protocol.
	IsProtocol struct{ Protocol Protocol }
	// IsPort matches protocol and destination port; with Not, the protocol and any other port.
	IsPort struct {
		Protocol Protocol
		Port     uint16
		Not      bool
	}
)

func (Jump) statement()       {}
func (Drop) statement()       {}
func (Reject) statement()     {}
func (Reset) statement()      {}
func (Masquerade) statement() {}
func (SetMark) statement()    {}
func (ClearMark) statement()  {}
func (HasMark) statement()    {}
func (InSet) statement()      {}
func (Dispatch) statement()   {}
func (DNAT) statement()       {}
func (Remember) statement()   {}
func (Translated) statement() {}
func (AddrLocal) statement()  {}
func (Interface) statement()  {}
func (IsProtocol) statement() {}
func (IsPort) statement()     {}

// Field is a part of a key that is looked up: what it is read from and, for
// [Random], the number of values above the low byte.
type Field uint32

const (
	SrcAddr     Field = iota + 1
	DstAddr           // of the packet
	L4Proto           // meta l4proto
	CtProto           // the same from conntrack: nft 1.0.6 swaps the bytes of meta l4proto in interval sets
	DstPort           // th dport
	OrigDstAddr       // before translation, from conntrack
	OrigDstPort

	random
)

// Random is a random number below n, in the host's byte order.
func Random(n int) Field { return random | Field(n)<<8 }

// RandomMod returns the n of Random(n), and 0 for other fields.
func (f Field) RandomMod() uint32 {
	if f&0xff == random {
		return uint32(f >> 8)
	}
	return 0
}

// Size returns the bytes that the field takes in a key, without padding.
func (f Field) Size(family Family) int {
	switch f {
	case SrcAddr, DstAddr, OrigDstAddr:
		return family.AddrSize()
	case L4Proto, CtProto:
		return 1
	case DstPort, OrigDstPort:
		return 2
	}
	return 4
}

// frontendKey are the fields of a packet that make a frontend.
func frontendKey() []Field { return []Field{DstAddr, L4Proto, DstPort} }

// slotKey are the fields that choose one of n endpoints of a frontend.
func slotKey(n int) []Field { return append(frontendKey(), Random(n)) }
