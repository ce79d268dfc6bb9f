package spec

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// label is RFC 1123: the API server accepts no other name of a Service or of its ports.
var label = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// ours reports whether a node implements the Service: not one of another proxy (KEP-2447), not an
// ExternalName, not a headless one (ServiceSpec.type, ServiceSpec.clusterIP), and none whose ClusterIP is not
// allocated.
func ours(s *corev1.Service) bool {
	_, other := s.Labels["service.kubernetes.io/service-proxy-name"]
	first := clusterIPsOf(s)[0]
	if s.Spec.ClusterIP != "" {
		first = s.Spec.ClusterIP
	}
	return !other && s.Spec.Type != corev1.ServiceTypeExternalName && first != corev1.ClusterIPNone &&
		first != "" && label.MatchString(s.Namespace) && label.MatchString(s.Name)
}

// clusterIPsOf returns clusterIPs, of which clusterIP is the first (ServiceSpec.clusterIPs).
func clusterIPsOf(s *corev1.Service) []string {
	if len(s.Spec.ClusterIPs) == 0 {
		return []string{s.Spec.ClusterIP}
	}
	return s.Spec.ClusterIPs
}

// port is a port of a Service.
type port struct {
	name             string
	protocol         uint8
	number, nodePort uint16
	twice            bool // another one with this protocol and number comes before it
}

// portsOf returns the valid ports. Names are unique among them, and so are protocol and number
// (ServiceSpec.ports); of those that are not, the first counts.
func portsOf(s *corev1.Service) (out []port) {
	valid := func(n int32) bool { return n > 0 && n <= 65535 }
	for _, p := range s.Spec.Ports {
		protocol, known := protocolNumber(p.Protocol)
		same := func(q port) bool { return q.name == p.Name }
		nameless := p.Name != "" && !label.MatchString(p.Name)
		if !known || !valid(p.Port) || nameless || slices.ContainsFunc(out, same) {
			continue
		}
		q := port{name: p.Name, protocol: protocol, number: uint16(p.Port)}
		if valid(p.NodePort) {
			q.nodePort = uint16(p.NodePort)
		}
		like := func(o port) bool { return o.protocol == q.protocol && o.number == q.number }
		q.twice = slices.ContainsFunc(out, like)
		out = append(out, q)
	}
	return out
}

// protocolNumber returns the number that IANA gives to a protocol of a Service. TCP is the default.
func protocolNumber(p corev1.Protocol) (uint8, bool) {
	n, ok := map[corev1.Protocol]uint8{"": protocolTCP, corev1.ProtocolTCP: protocolTCP,
		corev1.ProtocolUDP: 17, corev1.ProtocolSCTP: 132}[p]
	return n, ok
}

// nodeInfo is what counts of the Node.
type nodeInfo struct {
	addrs    []netip.Addr
	primary  map[bool]netip.Addr // of IPv4 (true) and IPv6: the first internal one, otherwise external
	zone     string
	podCIDRs []netip.Prefix
}

// newNode reads the Node of this proxy (API reference, NodeAddress, NodeSpec; well-known labels).
func newNode(n *corev1.Node) nodeInfo {
	out := nodeInfo{zone: n.Labels[corev1.LabelTopologyZone], primary: map[bool]netip.Addr{}}
	for _, kind := range []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP} {
		for _, na := range n.Status.Addresses {
			a, ok := parseAddress(na.Address)
			if !ok || !anyAddress(a) || na.Type != kind || slices.Contains(out.addrs, a) {
				continue
			}
			out.addrs = append(out.addrs, a)
			if _, known := out.primary[a.Is4()]; !known {
				out.primary[a.Is4()] = a
			}
		}
	}
	cidrs := n.Spec.PodCIDRs
	if len(cidrs) == 0 {
		cidrs = []string{n.Spec.PodCIDR}
	}
	out.podCIDRs = prefixes(cidrs)
	return out
}

// anyAddress reports whether a host can have the address.
func anyAddress(a netip.Addr) bool { return !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() }

// unicast reports whether an endpoint, load balancer or external IP can be the address: the API server
// refuses loopback, link-local and multicast ones (ValidateEndpointIP, CVE-2021-25737); 0.0.0.0/8 and
// broadcast are no destinations (RFC 1122, 3.2.1.3).
func unicast(a netip.Addr) bool {
	return anyAddress(a) && !a.IsLinkLocalUnicast() && !(a.Is4() && a.As4()[0] == 0) &&
		a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// addresses returns the addresses that can be read and that ok admits.
func addresses(texts []string, ok func(netip.Addr) bool) (out []netip.Addr) {
	for _, text := range texts {
		if a, parsed := parseAddress(text); parsed && ok(a) {
			out = append(out, a)
		}
	}
	return out
}

// parseAddress reads an address as the API server does: leading zeros do not mean octal, and an IPv4 address
// may be written as IPv6 (KEP-4858).
func parseAddress(text string) (netip.Addr, bool) {
	at := strings.LastIndexByte(text, ':') + 1 // behind the IPv6 part of ::ffff:192.0.2.1
	octets := strings.Split(text[at:], ".")
	for i, o := range octets {
		if n, err := strconv.Atoi(o); err == nil && len(octets) == 4 {
			octets[i] = strconv.Itoa(n)
		}
	}
	a, err := netip.ParseAddr(text[:at] + strings.Join(octets, "."))
	return a.Unmap(), err == nil && a.Zone() == ""
}

// parsePrefix reads a CIDR as parseAddress reads addresses.
func parsePrefix(text string) (netip.Prefix, bool) {
	ip, length, _ := strings.Cut(text, "/")
	a, ok := parseAddress(ip)
	bits, err := strconv.Atoi(length)
	if a.Is4() && strings.Contains(ip, ":") {
		bits -= 96
	}
	r := netip.PrefixFrom(a, bits)
	return r.Masked(), ok && err == nil && r.IsValid()
}

func prefixes(texts []string) (out []netip.Prefix) {
	for _, text := range texts {
		if r, ok := parsePrefix(text); ok {
			out = append(out, r)
		}
	}
	return out
}
