package nftables

import (
	"fmt"
	"math"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/rules/service"
)

// HasSocket matches a packet that a socket of this host gets. In prerouting the kernel has assigned a socket
// only to a packet that a rule with TPROXY or a BPF program (bpf_sk_assign) gave to another proxy: it takes
// the sender's socket away before (ip_rcv_core in net/ipv4/ip_input.c, "because of tproxy").
//
// It compares the user of the socket with the number that no user has. The statement "socket transparent 1"
// would be clearer, but looks for a socket where none is assigned, and needs the module nft_socket.
type HasSocket struct{}

func (HasSocket) text(service.Family) string {
	return fmt.Sprintf("meta skuid != %d", uint32(math.MaxUint32))
}

func (HasSocket) expressions(service.Family) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeySKUID, Register: unix.NFT_REG_1},
		compare(true, []byte{0xff, 0xff, 0xff, 0xff}),
	}
}

func (HasSocket) requires(service.Family) string { return core }

// Accept ends the evaluation of the base chain. Chains of later priority still see the packet.
type Accept struct{}

func (Accept) text(service.Family) string { return "accept" }

func (Accept) expressions(service.Family) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}
}

func (Accept) requires(service.Family) string { return core }
