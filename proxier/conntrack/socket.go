package conntrack

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/netfilter"
)

// dumpBufferSize holds one datagram of a dump, which the kernel fills with at most 32 KiB.
const dumpBufferSize = 64 << 10

// ackBufferSize holds one acknowledgement.
const ackBufferSize = 1 << 10

// socket is a ctnetlink socket. The kernel works on a request inside the system call that sends it, and on the
// next part of a dump inside the one that reads it, so nothing here ever waits.
type socket struct {
	fd  int
	buf []byte // the datagram received last
}

// openSocket opens a socket in a network namespace; zero is that of the calling thread.
func openSocket(netns, bufferSize int) (s *socket, err error) {
	err = netfilter.In(netns, func() (err error) {
		s, err = newSocket(bufferSize)
		return err
	})
	return s, err
}

// newSocket opens a socket in the network namespace of the calling thread.
func newSocket(bufferSize int) (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("create ctnetlink socket: %w", err)
	}
	s := &socket{fd: fd, buf: make([]byte, bufferSize)}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		s.close()
		return nil, fmt.Errorf("bind ctnetlink socket: %w", err)
	}
	// Errors come without a copy of the message that failed, so that many of them fit the receive buffer.
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1); err != nil {
		s.close()
		return nil, fmt.Errorf("set up ctnetlink socket: %w", err)
	}
	return s, nil
}

func (s *socket) close() { _ = unix.Close(s.fd) } // nothing is lost with it

// send hands the kernel one datagram of one or more messages.
func (s *socket) send(p []byte) error {
	for {
		_, err := unix.Write(s.fd, p)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("send %d bytes: %w", len(p), err)
		}
		return nil
	}
}
