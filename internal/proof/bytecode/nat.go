package bytecode

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// translation is nat: it translates the destination to an address and a port in registers.
type translation struct{ addr, port, size int }

// Flags that the kernel sets for the registers: NF_NAT_RANGE_MAP_IPS and NF_NAT_RANGE_PROTO_SPECIFIED.
const natRanges = 3

func (p *parser) nat() expression {
	x := translation{addr: p.register(unix.NFTA_NAT_REG_ADDR_MIN), port: -1, size: 4}
	if typ := p.number(unix.NFTA_NAT_TYPE); typ != unix.NFT_NAT_DNAT {
		p.refuse("type %d is not known", typ)
	}
	if flags := p.number(unix.NFTA_NAT_FLAGS); flags&^natRanges != 0 {
		p.refuse("flags %#x are not known", flags)
	}
	if p.number(unix.NFTA_NAT_FAMILY) == unix.NFPROTO_IPV6 {
		x.size = 16
	}
	if p.has(unix.NFTA_NAT_REG_PROTO_MIN) {
		x.port = p.register(unix.NFTA_NAT_REG_PROTO_MIN)
	}
	if p.has(unix.NFTA_NAT_REG_ADDR_MAX) && p.register(unix.NFTA_NAT_REG_ADDR_MAX) != x.addr ||
		p.has(unix.NFTA_NAT_REG_PROTO_MAX) && p.register(unix.NFTA_NAT_REG_PROTO_MAX) != x.port {
		p.refuse("ranges are not known")
	}
	return x
}

// run translates. The status says so only if the packet now goes elsewhere (nf_nat_setup_info).
func (x translation) run(w *way) {
	dst, _ := netip.AddrFromSlice(w.registers[x.addr : x.addr+x.size])
	port := w.port
	if x.port >= 0 {
		port = binary.BigEndian.Uint16(w.registers[x.port:])
	}
	if dst != w.dst || port != w.port {
		w.status |= statusDestinationNAT
	}
	w.status |= statusDestinationNATDone
	w.dst, w.port = dst, port
	w.header.setDestination(dst, port)
	w.translated, w.decided[destination] = true, true
	w.code = verdictAccept
}

// masquerade replaces the source address by one of the host.
type masquerade struct{}

func (masquerade) run(w *way) {
	w.status |= statusSourceNAT | statusSourceNATDone
	w.masqueraded, w.decided[source] = true, true
	w.code = verdictAccept
}

// reject answers with an error and drops the packet.
type reject struct{ reset bool }

func (p *parser) reject() expression {
	typ := p.number(unix.NFTA_REJECT_TYPE)
	var code byte
	if b := p.attrs[unix.NFTA_REJECT_ICMP_CODE]; len(b) == 1 {
		code = b[0]
	}
	// Port unreachable is code 3 of ICMP (RFC 792) and code 4 of ICMPv6 (RFC 4443).
	unreachable := map[uint8]byte{unix.NFPROTO_IPV4: 3, unix.NFPROTO_IPV6: 4}[p.table.Family]
	switch {
	case typ == unix.NFT_REJECT_TCP_RST:
	case typ == unix.NFT_REJECT_ICMP_UNREACH && code == unreachable:
	case typ == unix.NFT_REJECT_ICMPX_UNREACH && code == unix.NFT_REJECT_ICMPX_PORT_UNREACH:
	default:
		p.refuse("type %d with code %d is not known", typ, code)
	}
	return reject{typ == unix.NFT_REJECT_TCP_RST}
}

// run rejects. What is not TCP gets no answer to a reset (nf_reject_ip_tcphdr_get).
func (x reject) run(w *way) {
	w.reset = x.reset
	w.rejected = !x.reset || w.packet.Protocol == unix.IPPROTO_TCP
	w.code = verdictDrop
}
