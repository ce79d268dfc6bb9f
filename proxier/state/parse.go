package state

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	netutils "k8s.io/utils/net"

	"github.com/nftproxy/nftproxy/rules/service"
)

// parseAddr reads an address as the API server does, leading zeros included.
// Addresses that cannot be a Service's or an endpoint's are refused: the rules
// would capture the host's own traffic.
func parseAddr(text string) (netip.Addr, error) {
	addr, ok := netip.AddrFromSlice(netutils.ParseIPSloppy(text))
	if !ok {
		return addr, fmt.Errorf("%q is no IP address", text)
	}
	addr = addr.Unmap()
	if addr.IsUnspecified() || addr.IsLoopback() || addr.IsMulticast() {
		return addr, fmt.Errorf("%s is unspecified, loopback or multicast", addr)
	}
	return addr, nil
}

func parsePrefix(text string) (netip.Prefix, error) {
	_, ipnet, err := netutils.ParseCIDRSloppy(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is no CIDR", text)
	}
	addr, _ := netip.AddrFromSlice(ipnet.IP)
	ones, bits := ipnet.Mask.Size()
	if addr = addr.Unmap(); addr.BitLen() != bits {
		return netip.Prefix{}, fmt.Errorf("%q is no CIDR", text)
	}
	return netip.PrefixFrom(addr, ones), nil
}

func parseProtocol(p corev1.Protocol) (service.Protocol, error) {
	switch p {
	case corev1.ProtocolTCP, "":
		return service.TCP, nil
	case corev1.ProtocolUDP:
		return service.UDP, nil
	case corev1.ProtocolSCTP:
		return service.SCTP, nil
	}
	return 0, fmt.Errorf("%q is none of TCP, UDP and SCTP", p)
}

func validPort(p int32) bool { return p > 0 && p <= 65535 }
