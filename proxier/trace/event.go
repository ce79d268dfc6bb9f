package trace

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/service"
)

// event is a report of the kernel: a packet met a rule, or the end of a base chain.
type event struct {
	packet  uint32 // tells packets apart, until the kernel uses the number again
	chain   Chain
	kind    uint32 // NFT_TRACETYPE_
	handle  uint64 // of a rule
	verdict int32  // NF_ or NFT_, of a rule or the policy
	target  string // chain of a jump or goto
	in, out uint32 // interfaces; 0: none

	// header is known at the first rule of each base chain.
	header   bool
	protocol service.Protocol
	src, dst netip.AddrPort
}

// Chain names a chain.
type Chain struct {
	Family string `json:"family"` // in nft's words
	Table  string `json:"table"`
	Name   string `json:"chain"`
}

func (c Chain) String() string { return c.Family + " " + c.Table + " " + c.Name }

// familyNames are nft's names of families, by NFPROTO_.
func familyNames() map[uint8]string {
	return map[uint8]string{unix.NFPROTO_INET: "inet", unix.NFPROTO_IPV4: "ip", unix.NFPROTO_ARP: "arp",
		unix.NFPROTO_NETDEV: "netdev", unix.NFPROTO_BRIDGE: "bridge", unix.NFPROTO_IPV6: "ip6"}
}

func familyNumber(name string) uint8 {
	for number, known := range familyNames() {
		if known == name {
			return number
		}
	}
	return unix.NFPROTO_UNSPEC
}

func parseEvent(family uint8, attributes []byte) event {
	e := event{chain: Chain{Family: familyNames()[family]}}
	var network, transport []byte
	for typ, v := range netlink.Attrs(attributes) {
		switch typ {
		case unix.NFTA_TRACE_TABLE:
			e.chain.Table = netlink.String(v)
		case unix.NFTA_TRACE_CHAIN:
			e.chain.Name = netlink.String(v)
		case unix.NFTA_TRACE_RULE_HANDLE:
			if len(v) == 8 {
				e.handle = binary.BigEndian.Uint64(v)
			}
		case unix.NFTA_TRACE_TYPE:
			e.kind = netlink.Uint32(v)
		case unix.NFTA_TRACE_VERDICT:
			e.verdict, e.target = parseVerdict(v)
		case unix.NFTA_TRACE_POLICY:
			e.verdict = int32(netlink.Uint32(v))
		case unix.NFTA_TRACE_ID:
			e.packet = netlink.Uint32(v)
		case unix.NFTA_TRACE_IIF:
			e.in = netlink.Uint32(v)
		case unix.NFTA_TRACE_OIF:
			e.out = netlink.Uint32(v)
		case unix.NFTA_TRACE_NETWORK_HEADER:
			network = v
		case unix.NFTA_TRACE_TRANSPORT_HEADER:
			transport = v
		}
	}
	e.parseHeader(network, transport)
	return e
}

func parseVerdict(nested []byte) (code int32, chain string) {
	for typ, v := range netlink.Attrs(nested) {
		switch typ {
		case unix.NFTA_VERDICT_CODE:
			code = int32(netlink.Uint32(v))
		case unix.NFTA_VERDICT_CHAIN:
			chain = netlink.String(v)
		}
	}
	return code, chain
}

// parseHeader reads the addresses and ports. The kernel adds the header of IPv4 without options, or that of
// IPv6, and 20 bytes of what follows.
func (e *event) parseHeader(network, transport []byte) {
	if len(network) < 20 || len(transport) < 4 {
		return
	}
	var src, dst netip.Addr
	switch version := network[0] >> 4; {
	case version == 4:
		src, dst = netip.AddrFrom4([4]byte(network[12:])), netip.AddrFrom4([4]byte(network[16:]))
		e.protocol = service.Protocol(network[9])
	case version == 6 && len(network) >= 40:
		src, dst = netip.AddrFrom16([16]byte(network[8:])), netip.AddrFrom16([16]byte(network[24:]))
		e.protocol = service.Protocol(network[6])
	default:
		return
	}
	e.header = true
	e.src = netip.AddrPortFrom(src, binary.BigEndian.Uint16(transport))
	e.dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(transport[2:]))
}
