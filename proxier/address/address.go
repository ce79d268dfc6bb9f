// Package address parses IP addresses and CIDRs as Kubernetes does, into netip types.
//
// Older objects and configuration files contain numbers with leading zeros (010.0.0.1), which netip and net
// reject and which the API server and kube-proxy read as decimal. A rule that read them otherwise, or not at
// all, would serve other addresses than kube-proxy, so every package that reads an address from outside uses
// this one. IPv4 addresses come back as IPv4, also those written as IPv6 (::ffff:192.0.2.1). Errors quote the
// text.
package address

import (
	"fmt"
	"net/netip"

	netutils "k8s.io/utils/net"
)

// ParseAddr parses an IP address without a zone.
func ParseAddr(s string) (netip.Addr, error) {
	addr, ok := netip.AddrFromSlice(netutils.ParseIPSloppy(s))
	if !ok {
		return netip.Addr{}, fmt.Errorf("%q is not an IP address", s)
	}
	return addr.Unmap(), nil
}

// ParsePrefix parses a CIDR and clears its host bits. An IPv4 range that is written as IPv6
// (::ffff:10.0.0.0/104) is the IPv4 range, as in kube-proxy.
func ParsePrefix(s string) (netip.Prefix, error) {
	_, ipnet, err := netutils.ParseCIDRSloppy(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not a CIDR", s)
	}
	addr, _ := netip.AddrFromSlice(ipnet.IP)
	bits, _ := ipnet.Mask.Size()
	if addr.Is4In6() {
		return netip.PrefixFrom(addr.Unmap(), bits-96), nil // it has the 96 bits of ::ffff
	}
	return netip.PrefixFrom(addr, bits), nil
}
