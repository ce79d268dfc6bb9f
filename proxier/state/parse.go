package state

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	"github.com/nftproxy/nftproxy/proxier/address"
	"github.com/nftproxy/nftproxy/rules/service"
)

// parseAddr parses the address of a Service or an endpoint. It refuses addresses that cannot be one: the
// rules would capture the host's own traffic.
func parseAddr(text string) (netip.Addr, error) {
	addr, err := address.ParseAddr(text)
	if err != nil {
		return addr, err
	}
	if addr.IsUnspecified() || addr.IsLoopback() || addr.IsMulticast() {
		return addr, fmt.Errorf("%s is unspecified, loopback or multicast", addr)
	}
	return addr, nil
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
	return 0, fmt.Errorf("%q is not TCP, UDP or SCTP", p)
}

func validPort(p int32) bool { return p > 0 && p <= 65535 }
