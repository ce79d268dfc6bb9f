package service

import (
	"cmp"
	"fmt"
	"net/netip"
)

// Frontend is an address, protocol and port on which clients reach a Service: its ClusterIP, a load-balancer
// IP or an external IP with a port, or an address of the node with a nodePort.
type Frontend struct {
	Addr     netip.Addr
	Protocol Protocol
	Port     uint16
}

// String returns the frontend in nft's language, for example 10.96.0.10 . tcp . 80.
func (f Frontend) String() string {
	return fmt.Sprintf("%s . %s . %d", f.Addr, f.Protocol, f.Port)
}

// Compare orders frontends by address, protocol and port.
func (f Frontend) Compare(g Frontend) int {
	return cmp.Or(f.Addr.Compare(g.Addr), cmp.Compare(f.Protocol, g.Protocol), cmp.Compare(f.Port, g.Port))
}

// Backend is the address and port of an endpoint, to which a connection goes.
type Backend = netip.AddrPort
