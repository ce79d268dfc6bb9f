package trace

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
)

// Trace is a trace that runs.
type Trace struct {
	selection Selection
	conn      *netlink.Conn // owns the table
	listener  *netlink.Listener
	packets   []*Packet
	current   map[uint32]*Packet // by the number of the kernel
	devices   map[uint32]string
	// Missed says that reports were lost.
	Missed bool
}

// margin is how much longer than a Trace its table selects packets if nobody removes it.
const margin = 5 * time.Second

// Start begins a trace in the network namespace of the calling thread, which the caller locks. It needs
// CAP_NET_ADMIN. Close ends it.
func Start(s Selection) (*Trace, error) {
	listener, err := netlink.Listen(unix.NFNLGRP_NFTRACE)
	if err != nil {
		return nil, fmt.Errorf("trace packets: %w", err)
	}
	conn, err := netlink.Dial()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("trace packets: %w", err), listener.Close())
	}
	s.For += margin
	if err := s.install(conn); err != nil {
		return nil, errors.Join(fmt.Errorf("trace packets: %w", err), conn.Close(), listener.Close())
	}
	return &Trace{selection: s, conn: conn, listener: listener,
		current: map[uint32]*Packet{}, devices: map[uint32]string{}}, nil
}

// settle is how long after the deletion of a table its owner's socket is closed. The kernel frees the table
// in the background, after an RCU grace period. Until then the close of a socket waits for that, and commits of
// all programs wait for the close: 20 ms (nft_rcv_nl_event in net/netfilter/nf_tables_api.c, seen on 6.18).
const settle = 100 * time.Millisecond

// Close ends the trace and removes its table, unless another trace has done so on Linux before 5.12.
func (t *Trace) Close() error {
	b := &netlink.Batch{}
	t.selection.message(b, unix.NFT_MSG_DELTABLE, 0)
	err := t.conn.Commit(b)
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	time.Sleep(settle)
	return errors.Join(err, t.conn.Close(), t.listener.Close())
}

// Watch follows packets for a time, or until ctx ends.
func (t *Trace) Watch(ctx context.Context, d time.Duration) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for end := time.Now().Add(d); ; {
		// A short wait at a time, to notice the end of ctx.
		wait := min(max(time.Until(end), 0), 50*time.Millisecond)
		err := t.listener.Receive(wait, t.receive)
		switch {
		case errors.Is(err, netlink.ErrMissed):
			t.Missed = true
		case err != nil:
			return fmt.Errorf("trace packets: %w", err)
		}
		if ctx.Err() != nil || !time.Now().Before(end) {
			return nil
		}
	}
}

// receive records a message of the kernel.
func (t *Trace) receive(msgType uint16, family uint8, attributes []byte) {
	if msgType != unix.NFT_MSG_TRACE {
		return
	}
	e := parseEvent(family, attributes)
	// The mark itself is the first report of a packet. Others can have been marked by another program.
	if e.chain.Table == TableName && e.handle != 0 {
		if e.header {
			p := &Packet{Source: e.src, Destination: e.dst, SentFrom: e.src, SentTo: e.dst, Fate: Lost,
				In: t.device(e.in)}
			t.current[e.packet] = p
			t.packets = append(t.packets, p)
		}
		return
	}
	if p := t.current[e.packet]; p != nil {
		p.add(e, t.device)
	}
}

// device returns the name of an interface, and "" for 0.
func (t *Trace) device(index uint32) string {
	name, known := t.devices[index]
	if index == 0 || known {
		return name
	}
	name = fmt.Sprint("interface ", index)
	if device, err := net.InterfaceByIndex(int(index)); err == nil {
		name = device.Name
	}
	t.devices[index] = name
	return name
}

// Packets returns what happened to the packets, with the rules that they met as the kernel has them now. If
// source is valid, only those with this source.
func (t *Trace) Packets(source netip.AddrPort) ([]*Packet, error) {
	known := map[Step]ruleText{}
	var selected []*Packet
	for _, p := range t.packets {
		if source.IsValid() && p.Source != source {
			continue
		}
		selected = append(selected, p)
		for i := range p.Steps {
			if err := t.describe(&p.Steps[i], known); err != nil {
				return nil, err
			}
		}
	}
	return selected, nil
}
