package service

import (
	"cmp"
	"fmt"
	"net/netip"
)

// Frontend is an address, protocol and port on which a Service is reached: its
// ClusterIP, a load-balancer IP, an external IP, or a node address and a nodePort.
type Frontend struct {
	Addr     netip.Addr
	Protocol Protocol
	Port     uint16
}

// String prints the frontend as in nft: 10.96.0.10 . tcp . 80.
func (f Frontend) String() string {
	return fmt.Sprintf("%s . %s . %d", f.Addr, f.Protocol, f.Port)
}

// Compare orders frontends by address, protocol and port.
func (f Frontend) Compare(g Frontend) int {
	return cmp.Or(f.Addr.Compare(g.Addr), cmp.Compare(f.Protocol, g.Protocol), cmp.Compare(f.Port, g.Port))
}

// Backend is where a connection goes: an endpoint's address and port.
type Backend = netip.AddrPort
