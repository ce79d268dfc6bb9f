package nftables

import (
	"fmt"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/rules/service"
)

// InSet matches if the fields are in the set; with Not, if they are not.
type InSet struct {
	Key []Field
	Set string
	Not bool
}

func (s InSet) text(f service.Family) string {
	return keyText(s.Key, f) + " " + negation(s.Not) + "@" + s.Set
}

func (s InSet) expressions(f service.Family) []expr.Any {
	return append(loadKey(s.Key, f), &expr.Lookup{
		SourceRegister: unix.NFT_REG_1, SetName: s.Set, Invert: s.Not})
}

func (s InSet) requires(service.Family) string { return keyRequires(s.Key) }

// Dispatch continues with the verdict that the map has for the fields. It does not match if the map has none.
type Dispatch struct {
	Key []Field
	Map string
}

func (s Dispatch) text(f service.Family) string { return keyText(s.Key, f) + " vmap @" + s.Map }

func (s Dispatch) expressions(f service.Family) []expr.Any {
	return append(loadKey(s.Key, f), &expr.Lookup{
		SourceRegister: unix.NFT_REG_1, SetName: s.Map, IsDestRegSet: true})
}

func (s Dispatch) requires(service.Family) string { return keyRequires(s.Key) }

// DNAT sends the connection to the address and port that the map has for the fields. It does not match when
// the map does not have the fields.
type DNAT struct {
	Key []Field
	Map string
}

func (s DNAT) text(f service.Family) string {
	return fmt.Sprintf("dnat %s to %s map @%s", f, keyText(s.Key, f), s.Map)
}

// The lookup writes the address to register 1 and the port behind it.
func (s DNAT) expressions(f service.Family) []expr.Any {
	port := register(f.AddrSize())
	return append(loadKey(s.Key, f),
		&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: s.Map,
			IsDestRegSet: true, DestRegister: unix.NFT_REG_1},
		&expr.NAT{
			Type: expr.NATTypeDestNAT, Family: uint32(f.Number()), Specified: true,
			RegAddrMin: unix.NFT_REG_1, RegAddrMax: unix.NFT_REG_1, RegProtoMin: port, RegProtoMax: port,
		})
}

func (s DNAT) requires(service.Family) string {
	return "CONFIG_NFT_NAT (module nft_nat), " + keyRequires(s.Key)
}
