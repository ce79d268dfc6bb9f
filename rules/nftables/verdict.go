package nftables

import (
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/rules/service"
)

// Jump continues in another chain and comes back.
type Jump struct{ Chain string }

func (s Jump) text(service.Family) string { return "jump " + s.Chain }

func (s Jump) expressions(service.Family) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: s.Chain}}
}

func (Jump) requires(service.Family) string { return core }

// Goto continues in another chain and does not come back.
type Goto struct{ Chain string }

func (s Goto) text(service.Family) string { return "goto " + s.Chain }

func (s Goto) expressions(service.Family) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: s.Chain}}
}

func (Goto) requires(service.Family) string { return core }

// Drop drops the packet.
type Drop struct{}

func (Drop) text(service.Family) string { return "drop" }

func (Drop) expressions(service.Family) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}
}

func (Drop) requires(service.Family) string { return core }

// Reject answers with the port unreachable error of ICMP or ICMPv6: a connected socket gets ECONNREFUSED.
//
// This is not the form for both families (icmpx), which the kernel refuses in the tables ip and ip6 before
// Linux 5.11.
type Reject struct{}

func (Reject) text(service.Family) string { return "reject" }

func (Reject) expressions(f service.Family) []expr.Any {
	// Port unreachable is code 3 of ICMP (RFC 792) and code 4 of ICMPv6 (RFC 4443).
	code := uint8(3)
	if f == service.IPv6 {
		code = 4
	}
	return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: code}}
}

func (Reject) requires(f service.Family) string { return requiresReject(f) }

// requiresReject names the requirements of Reject and Reset. Linux rejects in prerouting since version 5.9.
func requiresReject(f service.Family) string {
	return "CONFIG_NFT_REJECT, CONFIG_NFT_REJECT_" + f.Option() +
		" (module nft_reject_" + f.Module() + "), Linux 5.9"
}

// Reset answers a TCP packet with a reset.
type Reset struct{}

func (Reset) text(service.Family) string { return "reject with tcp reset" }

func (Reset) expressions(service.Family) []expr.Any {
	return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}
}

func (Reset) requires(f service.Family) string { return requiresReject(f) }

// Masquerade replaces the source address by the host's and the source port by a random one. Otherwise two
// nodes could choose the same port for connections to the same endpoint.
type Masquerade struct{}

func (Masquerade) text(service.Family) string { return "masquerade fully-random" }

func (Masquerade) expressions(service.Family) []expr.Any {
	return []expr.Any{&expr.Masq{FullyRandom: true}}
}

func (Masquerade) requires(service.Family) string { return "CONFIG_NFT_MASQ (module nft_masq)" }
