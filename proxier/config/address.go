package config

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/nftproxy/nftproxy/proxier/address"
)

// mustPrefix parses a CIDR that validate has accepted.
func mustPrefix(s string) netip.Prefix {
	p, err := address.ParsePrefix(s)
	if err != nil {
		panic("configuration was not validated: " + err.Error())
	}
	return p
}

// checkAddrPort returns an error if s is not an IP address and port to listen on.
func checkAddrPort(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q is not IP:port", s)
	}
	if _, err := address.ParseAddr(host); err != nil {
		return err
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("port %q is not within 1 to 65535", port)
	}
	return nil
}

// withPort appends port to an IP address without one. It returns anything else as it is, for validate to
// check.
func withPort(s string, port int32) string {
	if _, err := address.ParseAddr(s); err != nil {
		return s
	}
	return net.JoinHostPort(s, strconv.Itoa(int(port)))
}
