// Package host is what the proxy knows of the host it runs on, beside nftables:
// its addresses and whether it forwards packets.
package host

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Host is a network namespace.
type Host struct {
	// NetNS is the file descriptor of the network namespace; 0 is the process's own.
	NetNS int
}

// Addrs returns all addresses of all interfaces, sorted.
func (h Host) Addrs() ([]netip.Addr, error) {
	handle, err := h.handle()
	if err != nil {
		return nil, err
	}
	defer handle.Close()
	list, err := handle.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var addrs []netip.Addr
	for _, a := range list {
		// An address that is still being probed for duplicates is not the host's yet.
		if addr, ok := netip.AddrFromSlice(a.IP); ok && a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0 {
			addrs = append(addrs, addr.Unmap())
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs), nil
}

func (h Host) handle() (*netlink.Handle, error) {
	if h.NetNS == 0 {
		handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return nil, fmt.Errorf("open route socket: %w", err)
		}
		return handle, nil
	}
	handle, err := netlink.NewHandleAt(netns.NsHandle(h.NetNS), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open route socket: %w", err)
	}
	return handle, nil
}

// Watch calls changed whenever an address came or went, until ctx ends. It calls
// it once at first, when nothing can be missed any more, and again when the
// kernel's messages were lost.
func (h Host) Watch(ctx context.Context, changed func()) error {
	for ctx.Err() == nil {
		updates := make(chan netlink.AddrUpdate, 64)
		done := make(chan struct{})
		options := netlink.AddrSubscribeOptions{}
		if h.NetNS != 0 {
			ns := netns.NsHandle(h.NetNS)
			options.Namespace = &ns
		}
		if err := netlink.AddrSubscribeWithOptions(updates, done, options); err != nil {
			return fmt.Errorf("subscribe to addresses: %w", err)
		}
		changed()
		forward(ctx, updates, changed)
		close(done)
	}
	return nil
}

// forward calls changed for each update, until there are no more or ctx ends.
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
