// Package host reads and changes the settings of the host that a proxy needs besides nftables: addresses,
// forwarding and the OOM score of the process. The daemon and `nftproxy check` share it.
//
// The functions look at the network namespace of the calling thread. They only read and write; the caller
// decides what to report. Each stands alone: start reading at the one you need.
package host

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Addrs returns the addresses of all interfaces, sorted.
func Addrs() ([]netip.Addr, error) {
	list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var addrs []netip.Addr
	for _, a := range list {
		// The host does not own an address yet while it probes for duplicates.
		addr, ok := netip.AddrFromSlice(a.IP)
		if ok && a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0 {
			addrs = append(addrs, addr.Unmap())
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs), nil
}

// WatchAddrs calls changed whenever an address is added or removed, until ctx ends. It also calls it once at
// the start, after it has subscribed and cannot miss a change, and after the kernel dropped messages.
func WatchAddrs(ctx context.Context, changed func()) error {
	for ctx.Err() == nil {
		updates := make(chan netlink.AddrUpdate, 64)
		done := make(chan struct{})
		if err := netlink.AddrSubscribe(updates, done); err != nil {
			return fmt.Errorf("subscribe to addresses: %w", err)
		}
		changed()
		forward(ctx, updates, changed)
		close(done)
	}
	return nil
}

// forward calls changed for each update, until the subscription or ctx ends.
func forward(ctx context.Context, updates <-chan netlink.AddrUpdate, changed func()) {
	for {
		select {
		case _, ok := <-updates:
			if !ok {
				return
			}
			changed()
		case <-ctx.Done():
			return
		}
	}
}
