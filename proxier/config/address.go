package config

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"

	netutils "k8s.io/utils/net"
)

// parseAddr parses an IP address as kube-proxy does: leading zeros, which older
// configuration files have, are decimal.
func parseAddr(s string) (netip.Addr, error) {
	addr, ok := netip.AddrFromSlice(netutils.ParseIPSloppy(s))
	if !ok {
		return netip.Addr{}, fmt.Errorf("%q is not an IP address", s)
	}
	return addr.Unmap(), nil
}

// parsePrefix parses a CIDR as kube-proxy does and cuts off its host bits.
func parsePrefix(s string) (netip.Prefix, error) {
	_, ipnet, err := netutils.ParseCIDRSloppy(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not a CIDR", s)
	}
	addr, _ := netip.AddrFromSlice(ipnet.IP)
	bits, _ := ipnet.Mask.Size()
	if addr.Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is an IPv4 range written as IPv6", s)
	}
	return netip.PrefixFrom(addr, bits), nil
}

// mustPrefix is parsePrefix for what has been validated.
func mustPrefix(s string) netip.Prefix {
	p, err := parsePrefix(s)
	if err != nil {
		panic("configuration was not validated: " + err.Error())
	}
	return p
}

// checkAddrPort says what is wrong with an address to listen on.
func checkAddrPort(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q is not IP:port", s)
	}
	if _, err := parseAddr(host); err != nil {
		return err
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("port %q is not within 1 to 65535", port)
	}
	return nil
}

// withPort appends port to an IP address that has none. What is neither is left for
// validation to complain about.
func withPort(s string, port int32) string {
	if _, err := parseAddr(s); err != nil {
		return s
	}
	return net.JoinHostPort(s, strconv.Itoa(int(port)))
}
