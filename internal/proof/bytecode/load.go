package bytecode

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// payload loads bytes of the network or transport header.
type payload struct {
	to, offset, size int
	transport        bool
}

func (p *parser) payload() expression {
	base := p.number(unix.NFTA_PAYLOAD_BASE)
	if base != unix.NFT_PAYLOAD_NETWORK_HEADER && base != unix.NFT_PAYLOAD_TRANSPORT_HEADER ||
		p.has(unix.NFTA_PAYLOAD_SREG) {
		p.refuse("base %d is not known, nor is writing", base)
	}
	return payload{p.register(unix.NFTA_PAYLOAD_DREG), int(p.number(unix.NFTA_PAYLOAD_OFFSET)),
		int(p.number(unix.NFTA_PAYLOAD_LEN)), base == unix.NFT_PAYLOAD_TRANSPORT_HEADER}
}

func (x payload) run(w *way) {
	from := w.header.net[:w.header.netSize]
	if x.transport {
		from = w.header.transport[:]
	}
	if x.offset+x.size > len(from) {
		w.err = fmt.Errorf("bytes %d to %d of the header are not known", x.offset, x.offset+x.size)
		return
	}
	w.registers.store(x.to, from[x.offset:x.offset+x.size])
	w.anyPort = w.anyPort || x.isSourcePort()
}

func (x payload) isSourcePort() bool { return x.transport && x.offset == 0 && x.size == 2 }

// meta loads or writes what the kernel knows about the packet.
type meta struct {
	key     uint32
	at      int
	written bool
}

func (p *parser) meta() expression {
	x := meta{key: p.number(unix.NFTA_META_KEY), written: p.has(unix.NFTA_META_SREG)}
	switch x.key {
	case unix.NFT_META_MARK, unix.NFT_META_PRIORITY:
	case unix.NFT_META_L4PROTO, unix.NFT_META_NFPROTO, unix.NFT_META_IIFNAME, unix.NFT_META_SKUID:
		if x.written {
			p.refuse("writing key %d is not known", x.key)
		}
	default:
		p.refuse("key %d is not known", x.key)
	}
	attribute := uint16(unix.NFTA_META_DREG)
	if x.written {
		attribute = unix.NFTA_META_SREG
	}
	x.at = p.register(attribute)
	return x
}

func (x meta) run(w *way) {
	r := &w.registers
	switch {
	case x.written && x.key == unix.NFT_META_MARK:
		w.mark = r.load32(x.at)
	case x.written:
		w.priority = r.load32(x.at)
	case x.key == unix.NFT_META_MARK:
		r.store32(x.at, w.mark)
	case x.key == unix.NFT_META_PRIORITY:
		r.store32(x.at, w.priority)
	case x.key == unix.NFT_META_L4PROTO:
		r.store(x.at, []byte{w.packet.Protocol})
	case x.key == unix.NFT_META_NFPROTO:
		r.store(x.at, []byte{w.packet.family()})
	case x.key == unix.NFT_META_IIFNAME:
		r.store(x.at, w.inputName())
	case x.key == unix.NFT_META_SKUID:
		// A packet of the host comes from a socket, of root here; one from outside has none.
		if w.match(w.packet.Interface == "" && !w.looped || w.packet.Socket); w.code == unix.NFT_CONTINUE {
			r.store32(x.at, 0)
		}
	}
}

// inputName returns the name of the interface on which the packet arrived, which is empty in the hooks that
// it passes on its way out (nft_meta_store_ifname).
func (w *way) inputName() []byte {
	name := make([]byte, unix.IFNAMSIZ)
	if w.looped {
		copy(name, "lo")
	} else if w.at != unix.NF_INET_POST_ROUTING {
		copy(name, w.packet.Interface)
	}
	return name
}

// Bits of the status of a connection (linux/netfilter/nf_conntrack_common.h).
const (
	statusSourceNAT          = 1 << 4
	statusDestinationNAT     = 1 << 5
	statusSourceNATDone      = 1 << 7
	statusDestinationNATDone = 1 << 8
	stateNew                 = 1 << 3 // NF_CT_STATE_BIT(IP_CT_NEW)
)

// conntrack is ct: what connection tracking knows. The connection is new.
type conntrack struct {
	key uint32
	to  int
}

func (p *parser) ct() expression {
	x := conntrack{p.number(unix.NFTA_CT_KEY), p.register(unix.NFTA_CT_DREG)}
	original := !p.has(unix.NFTA_CT_DIRECTION) || p.attrs[unix.NFTA_CT_DIRECTION][0] == 0
	switch x.key {
	case unix.NFT_CT_STATE, unix.NFT_CT_STATUS, unix.NFT_CT_PROTOCOL, unix.NFT_CT_PROTO_DST,
		unix.NFT_CT_SRC_IP, unix.NFT_CT_DST_IP, unix.NFT_CT_SRC_IP6, unix.NFT_CT_DST_IP6,
		unix.NFT_CT_SRC, unix.NFT_CT_DST:
	default:
		p.refuse("key %d is not known", x.key)
	}
	if !original || p.has(unix.NFTA_CT_SREG) {
		p.refuse("the direction of replies is not known, nor is writing")
	}
	return x
}

func (x conntrack) run(w *way) {
	r := &w.registers
	switch x.key {
	case unix.NFT_CT_STATE:
		r.store32(x.to, stateNew)
	case unix.NFT_CT_STATUS:
		r.store32(x.to, w.status)
	case unix.NFT_CT_PROTOCOL:
		r.store(x.to, []byte{w.packet.Protocol})
	case unix.NFT_CT_PROTO_DST:
		r.store(x.to, []byte{byte(w.packet.Port >> 8), byte(w.packet.Port)})
	case unix.NFT_CT_SRC, unix.NFT_CT_SRC_IP, unix.NFT_CT_SRC_IP6:
		r.store(x.to, w.packet.Src.AsSlice())
	default:
		r.store(x.to, w.packet.Dst.AsSlice())
	}
}

// addressType is fib with the type of an address as its result.
type addressType struct {
	to     int
	source bool
}

func (p *parser) fib() expression {
	result, flags := p.number(unix.NFTA_FIB_RESULT), p.number(unix.NFTA_FIB_FLAGS)
	oneAddress := flags == unix.NFTA_FIB_F_SADDR || flags == unix.NFTA_FIB_F_DADDR
	if result != unix.NFT_FIB_RESULT_ADDRTYPE || !oneAddress {
		p.refuse("result %d with flags %#x is not known", result, flags)
	}
	return addressType{p.register(unix.NFTA_FIB_DREG), flags == unix.NFTA_FIB_F_SADDR}
}

func (x addressType) run(w *way) {
	a := w.dst
	if x.source {
		a = w.packet.Src
	}
	typ := uint32(unix.RTN_UNICAST)
	broadcast := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	switch {
	case w.local(a):
		typ = unix.RTN_LOCAL
	case a.IsMulticast():
		typ = unix.RTN_MULTICAST
	case a == broadcast, a.Is4() && a.IsUnspecified(): // inet_addr_type
		typ = unix.RTN_BROADCAST
	}
	w.registers.store32(x.to, typ)
}
