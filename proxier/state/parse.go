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

// parseDestination parses an address that a user chooses and that traffic goes to: that of an endpoint, an
// external IP or that of a load balancer.
//
// The API server refuses link-local endpoints and external IPs (ValidateEndpointIP), since an endpoint at
// 169.254.169.254 was a way to the metadata service of a node's cloud (CVE-2021-25737). 0.0.0.0/8 (RFC 1122:
// this network) and the broadcast address are no unicast addresses. The rest of 240.0.0.0/4 is admitted, as
// the API server does: there are clusters whose pods have them.
func parseDestination(text string) (netip.Addr, error) {
	addr, err := parseAddr(text)
	if err != nil {
		return addr, err
	}
	special := addr.IsLinkLocalUnicast()
	if addr.Is4() {
		b := addr.As4()
		special = special || b[0] == 0 || b == [4]byte{255, 255, 255, 255}
	}
	if special {
		return addr, fmt.Errorf("%s is link-local, broadcast or in 0.0.0.0/8", addr)
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
