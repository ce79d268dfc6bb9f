// Package host reads and changes the settings of the host that a proxy needs besides nftables: addresses,
// forwarding and the OOM score of the process. The daemon and `nftproxy check` share it.
//
// The functions look at the network namespace of the calling thread. They only read and write; the caller
// decides what to report. Each stands alone: start reading at the one you need.
package host

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/rules/service"
)

// Addrs returns the addresses of the host, sorted: those of all interfaces, and those that are local by a
// route only (`ip route add local ADDRESS dev lo`), as cloud agents make for the IPs of load balancers. It
// leaves out routes to more than one address, because a range may be of any size.
func Addrs() ([]netip.Addr, error) {
	addrs, err := whole(interfaceAddrs)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, f := range service.Families() {
		local, err := whole(func() ([]netip.Addr, error) { return routeAddrs(f) })
		if err != nil {
			return nil, fmt.Errorf("list local %s routes: %w", f.APIName(), err)
		}
		addrs = append(addrs, local...)
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs), nil
}

// whole repeats a dump that a change has interrupted, because it may lack addresses.
func whole(dump func() ([]netip.Addr, error)) (addrs []netip.Addr, err error) {
	const attempts = 10
	for range attempts {
		if addrs, err = dump(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return addrs, err
		}
	}
	return nil, err
}

func interfaceAddrs() ([]netip.Addr, error) {
	list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	var addrs []netip.Addr
	for _, a := range list {
		// The host does not own an address yet while it probes for duplicates.
		addr, ok := netip.AddrFromSlice(a.IP)
		if ok && a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0 {
			addrs = append(addrs, addr.Unmap())
		}
	}
	return addrs, err
}

// routeAddrs returns the addresses of a family to which the table local has a route. This is where `fib daddr
// type local` looks, with which kube-proxy recognises addresses of the node.
func routeAddrs(f service.Family) ([]netip.Addr, error) {
	conn, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	// The kernel filters (Linux 4.20): a router may have a million routes.
	if err := conn.SetStrictCheck(true); err != nil {
		return nil, err
	}
	filter := &netlink.Route{Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL}
	var addrs []netip.Addr
	err = conn.RouteListFilteredIter(int(f.Number()), filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE,
		func(r netlink.Route) bool {
			if addr, ok := single(r.Dst); ok {
				addrs = append(addrs, addr)
			}
			return true
		})
	// ENOENT: no interface ever had an address of the family. EOPNOTSUPP: the kernel does not support IPv6.
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	return addrs, err
}

// single returns the address of a network of one address.
func single(to *net.IPNet) (netip.Addr, bool) {
	if to == nil {
		return netip.Addr{}, false
	}
	addr, ok := netip.AddrFromSlice(to.IP)
	ones, bits := to.Mask.Size()
	return addr.Unmap(), ok && ones == bits
}
