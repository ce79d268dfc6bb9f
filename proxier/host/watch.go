package host

import (
	"context"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// WatchAddrs calls changed whenever an address or a local route is added or removed, until ctx ends. It also
// calls it once at the start, after it has subscribed and cannot miss a change, and after the kernel dropped
// messages.
func WatchAddrs(ctx context.Context, changed func()) error {
	for ctx.Err() == nil {
		if err := watch(ctx, changed); err != nil {
			return err
		}
	}
	return nil
}

// watch is WatchAddrs until the kernel drops messages, which ends a subscription.
func watch(ctx context.Context, changed func()) error {
	addrs, routes := make(chan netlink.AddrUpdate, 64), make(chan netlink.RouteUpdate, 64)
	done := make(chan struct{})
	defer close(done)
	if err := netlink.AddrSubscribe(addrs, done); err != nil {
		return fmt.Errorf("subscribe to addresses: %w", err)
	}
	defer func() { go drain(addrs) }()
	if err := netlink.RouteSubscribe(routes, done); err != nil {
		return fmt.Errorf("subscribe to routes: %w", err)
	}
	defer func() { go drain(routes) }()
	changed()
	for {
		select {
		case _, ok := <-addrs:
			if !ok {
				return nil
			}
			changed()
		case r, ok := <-routes:
			if !ok {
				return nil
			}
			if r.Route.Type == unix.RTN_LOCAL {
				changed()
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// drain lets a subscription that is done end: it may be sending.
func drain[T any](updates <-chan T) {
	for range updates {
	}
}
