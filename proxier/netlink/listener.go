package netlink

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Listener gets the messages of a multicast group of netfilter, in the network namespace of the thread that
// opened it. Its socket sends nothing, so it can be used beside a Socket.
type Listener struct {
	fd  int
	buf []byte
}

// ErrMissed means that messages came faster than they were read: some are lost.
var ErrMissed = errors.New("messages of the kernel were lost, because they came too fast")

// listenRoom is the size of the receive buffer. It is only a limit: it takes no memory while few messages
// wait.
const listenRoom = 4 << 20

// maxReceived is how many datagrams are received with one call: more than the buffer holds.
const maxReceived = 1 << 14

// Listen joins a group (NFNLGRP_). It needs CAP_NET_ADMIN.
func Listen(group int) (*Listener, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, fmt.Errorf("listen to netlink group %d: %w (%w)", group, ErrAbsent, err)
	}
	if err != nil {
		return nil, fmt.Errorf("listen to netlink group %d: %w", group, err)
	}
	// Outside the initial user namespace SO_RCVBUFFORCE is refused, and net.core.rmem_max is the limit.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, listenRoom) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, listenRoom)
	}
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group)
	}
	if err != nil {
		_ = unix.Close(fd)
		if errors.Is(err, unix.EPERM) {
			err = fmt.Errorf("%w: %w", ErrPermission, err)
		}
		return nil, fmt.Errorf("listen to netlink group %d: %w", group, err)
	}
	return &Listener{fd: fd, buf: make([]byte, dumpSize)}, nil
}

// Close leaves the group. Do not use the Listener afterwards.
func (l *Listener) Close() error {
	if err := unix.Close(l.fd); err != nil {
		return fmt.Errorf("close netlink listener: %w", err)
	}
	return nil
}

// Receive waits for messages, at most that long, and calls each with the type (of the subsystem), the family
// and the attributes of those that have come. The attributes are valid during the call only. After ErrMissed
// it can be called again.
func (l *Listener) Receive(
	wait time.Duration, each func(msgType uint16, family uint8, attributes []byte),
) error {
	ready := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}}
	n, err := unix.Poll(ready, int(wait.Milliseconds()))
	if n == 0 || errors.Is(err, unix.EINTR) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("wait for netlink messages: %w", err)
	}
	// Messages may come faster than they are read, for as long as they like.
	for range maxReceived {
		n, from, err := unix.Recvfrom(l.fd, l.buf, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOBUFS):
			return ErrMissed
		case err != nil:
			return fmt.Errorf("receive netlink messages: %w", err)
		}
		if kernel, ok := from.(*unix.SockaddrNetlink); !ok || kernel.Pid != 0 {
			continue
		}
		for m := range messages(l.buf[:n]) {
			if len(m.payload) >= headerSize {
				each(m.typ&0xff, m.payload[0], m.payload[headerSize:])
			}
		}
	}
	return nil
}
