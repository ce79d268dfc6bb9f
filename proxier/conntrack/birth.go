package conntrack

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Births are the flows that begin while it is open. The table alone does not have all of them: connection
// tracking deletes the flow of a TCP connection at once that is refused by a reset.
type Births struct{ listener *netlink.Listener }

// newFlows is NFNLGRP_CONNTRACK_NEW of linux/netfilter/nfnetlink_compat.h.
const newFlows = 1

// WatchBirths begins to listen, in the network namespace of the calling thread. It needs CAP_NET_ADMIN. While
// it is open, every new connection of the namespace costs a message, so close it soon.
func WatchBirths() (*Births, error) {
	l, err := netlink.Listen(newFlows)
	if err != nil {
		return nil, fmt.Errorf("watch new flows: %w", err)
	}
	return &Births{l}, nil
}

// Close stops listening.
func (b *Births) Close() error { return b.listener.Close() }

// Translation returns where the packets from src to dst go: to dst itself if nothing translated them. It
// returns false if there was no such flow: none of its packets has left this network namespace. It must be
// called on a thread in the namespace of WatchBirths, and looks in zone 0 for a flow that is older.
func (b *Births) Translation(p service.Protocol, src, dst netip.AddrPort) (to netip.AddrPort, found bool,
	err error) {
	err = b.listener.Receive(0, func(_ uint16, _ uint8, attributes []byte) {
		f := parseFlow(attributes)
		if _, client, frontend := parseTuple(f.tuple); f.protocol == p && client == src && frontend == dst {
			to, found = f.backend, true
		}
	})
	if found {
		return to, true, nil
	}
	missed := errors.Is(err, netlink.ErrMissed)
	if err != nil && !missed {
		return netip.AddrPort{}, false, fmt.Errorf("read new flows: %w", err)
	}
	to, found, lookup := inTable(p, src, dst)
	if missed && !found && lookup == nil {
		lookup = fmt.Errorf("read new flows: %w", err)
	}
	return to, found, lookup
}

// inTable looks a flow up.
func inTable(p service.Protocol, src, dst netip.AddrPort) (to netip.AddrPort, found bool, err error) {
	s, err := netlink.Open()
	if err != nil {
		return netip.AddrPort{}, false, fmt.Errorf("look up flow: %w", err)
	}
	defer s.Close()
	var w netlink.Writer
	w.Message(unix.NFNL_SUBSYS_CTNETLINK, msgGet, unix.NLM_F_ACK, service.FamilyOf(dst.Addr()).Number())
	appendTuple(&w, ctaTupleOrig, p, src, dst)
	err = s.Request(&w, func(attributes []byte) error {
		to, found = parseFlow(attributes).backend, true
		return nil
	})
	if errors.Is(err, unix.ENOENT) {
		return netip.AddrPort{}, false, nil
	}
	if err != nil {
		return netip.AddrPort{}, false, fmt.Errorf("look up flow from %s to %s: %w", src, dst, err)
	}
	return to, found, nil
}
