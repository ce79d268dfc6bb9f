package service

import "net/netip"

// Family is an IP family. Each family has a table of its own.
type Family uint8

const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// Families returns both families in the order in which they are programmed and printed.
func Families() []Family { return []Family{IPv4, IPv6} }

// FamilyOf returns the family of addr. An IPv4-mapped IPv6 address is IPv6.
func FamilyOf(addr netip.Addr) Family {
	if addr.Is4() {
		return IPv4
	}
	return IPv6
}

// String returns nft's name of the family, in table names and in header fields: ip or ip6.
func (f Family) String() string {
	if f == IPv4 {
		return "ip"
	}
	return "ip6"
}

// APIName returns the family's name in the Kubernetes API: IPv4 or IPv6.
func (f Family) APIName() string {
	if f == IPv4 {
		return "IPv4"
	}
	return "IPv6"
}

// AddrType returns nft's name for the type of the family's addresses.
func (f Family) AddrType() string {
	if f == IPv4 {
		return "ipv4_addr"
	}
	return "ipv6_addr"
}

// AddrSize returns the size of an address in bytes.
func (f Family) AddrSize() int {
	if f == IPv4 {
		return 4
	}
	return 16
}

// Number returns the family's number in netlink messages: NFPROTO_IPV4 or NFPROTO_IPV6 of linux/netfilter.h,
// which are the same as AF_INET and AF_INET6.
func (f Family) Number() uint8 {
	if f == IPv4 {
		return 2
	}
	return 10
}

// Option returns the family's suffix in the names of kernel options: IPV4 or IPV6.
func (f Family) Option() string {
	if f == IPv4 {
		return "IPV4"
	}
	return "IPV6"
}

// Module returns the family's suffix in the names of kernel modules: ipv4 or ipv6.
func (f Family) Module() string {
	if f == IPv4 {
		return "ipv4"
	}
	return "ipv6"
}
