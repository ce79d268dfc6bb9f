package main

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// writeRules writes minimal rules for the first Service: one per protocol for its ClusterIP, and one for its
// nodePort.
func writeRules(ns *lab.Namespace) error {
	conn, err := nftables.New(nftables.WithNetNSFd(ns.FD()))
	if err != nil {
		return err
	}
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "bench"})
	chain := conn.AddChain(&nftables.Chain{Name: "prerouting", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest})
	for _, rule := range [][]expr.Any{
		dnat(unix.IPPROTO_TCP, netip.AddrPortFrom(firstAddr, servicePort)),
		dnat(unix.IPPROTO_UDP, netip.AddrPortFrom(firstAddr, servicePort)),
		dnat(unix.IPPROTO_TCP, netip.AddrPortFrom(nodeAddr, nodePort)),
	} {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: rule})
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("write rules: %w", err)
	}
	return nil
}

// dnat returns the expressions of
//
//	ip daddr ADDRESS meta l4proto PROTOCOL th dport PORT dnat to POD:PORT
func dnat(proto byte, to netip.AddrPort) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: to.Addr().AsSlice()},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(to.Port())},
		&expr.Immediate{Register: 1, Data: podAddr.AsSlice()},
		&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(podPort)},
		&expr.NAT{
			Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2, Specified: true,
		},
	}
}
