package nftables

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/rules/service"
)

// Translated matches a connection whose destination is translated.
type Translated struct{}

// ctStatusDNAT is IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h.
const ctStatusDNAT = 1 << 5

func (Translated) text(service.Family) string { return "ct status dnat" }

func (Translated) expressions(service.Family) []expr.Any {
	return anyBitSet(&expr.Ct{Key: expr.CtKeySTATUS, Register: unix.NFT_REG_1}, ctStatusDNAT)
}

func (Translated) requires(service.Family) string { return ctRequires }

// AddrLocal matches if the address (SrcAddr or DstAddr) is an address of the host; with Not, if it is not.
type AddrLocal struct {
	Addr Field
	Not  bool
}

func (s AddrLocal) text(service.Family) string {
	addr := "saddr"
	if s.Addr == DstAddr {
		addr = "daddr"
	}
	return "fib " + addr + " type " + negation(s.Not) + "local"
}

func (s AddrLocal) expressions(service.Family) []expr.Any {
	return []expr.Any{
		&expr.Fib{
			Register: unix.NFT_REG_1, ResultADDRTYPE: true,
			FlagSADDR: s.Addr == SrcAddr, FlagDADDR: s.Addr == DstAddr,
		},
		compare(s.Not, binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL)),
	}
}

func (AddrLocal) requires(f service.Family) string {
	return "CONFIG_NFT_FIB_" + f.Option() + " (module nft_fib_" + f.Module() + ")"
}

// Interface matches the name of the interface on which the packet arrived; with Not, it matches all others. A
// trailing * stands for any rest of the name. Packets of the host itself arrived on no interface.
type Interface struct {
	Name string
	Not  bool
}

func (s Interface) text(service.Family) string {
	return fmt.Sprintf("iifname %s%q", negation(s.Not), s.Name)
}

func (s Interface) expressions(service.Family) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: unix.NFT_REG_1},
		compare(s.Not, interfaceName(s.Name)),
	}
}

func (Interface) requires(service.Family) string { return core }

// interfaceName returns the bytes to compare the name with: all IFNAMSIZ bytes, or the prefix before a *.
func interfaceName(name string) []byte {
	if prefix, ok := strings.CutSuffix(name, "*"); ok {
		return []byte(prefix)
	}
	b := make([]byte, max(unix.IFNAMSIZ, len(name)))
	copy(b, name)
	return b[:unix.IFNAMSIZ]
}

// IsProtocol matches the transport protocol.
type IsProtocol struct{ Protocol service.Protocol }

func (s IsProtocol) text(service.Family) string { return "meta l4proto " + s.Protocol.String() }

func (s IsProtocol) expressions(f service.Family) []expr.Any {
	return []expr.Any{L4Proto.loadOne(f, unix.NFT_REG_1), compare(false, []byte{byte(s.Protocol)})}
}

func (IsProtocol) requires(service.Family) string { return core }
