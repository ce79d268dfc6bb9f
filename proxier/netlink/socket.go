package netlink

import (
	"errors"
	"fmt"
	"math"
	"net"

	"golang.org/x/sys/unix"
)

// readBufferSize holds one datagram. The kernel fills a dump with at most 32 KiB at a time.
const readBufferSize = 64 << 10

// Socket is a lasting NETLINK_NETFILTER socket in the network namespace of the thread that opens it.
//
// After an error that leaves the socket out of step it is closed, and opened again by the next call.
type Socket struct {
	fd     int // -1: to be opened by the next call
	closed bool
	port   uint32 // the kernel's address of this socket
	seq    uint32 // the sequence number last used
	buf    []byte // the datagram received last
}

// Open opens a Socket. Opening needs no privilege; using it needs CAP_NET_ADMIN in the user namespace that owns the
// network namespace.
func Open() (*Socket, error) {
	s := newSocket()
	if err := s.ready(); err != nil {
		return nil, err
	}
	return &s, nil
}

func newSocket() Socket { return Socket{fd: -1, buf: make([]byte, readBufferSize)} }

// Close closes the socket, which must not be used after that.
func (s *Socket) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	if s.fd < 0 {
		return nil
	}
	fd := s.fd
	s.fd = -1
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("close netlink socket: %w", err)
	}
	return nil
}

// Request sends the one message of w and calls each with every message of the answer but the last one, which says
// whether the request failed: then the error is an *Error. Messages are valid during the call only. An error of each
// ends the request. ErrInterrupted, after everything was delivered, says that a dump is not of one moment.
func (s *Socket) Request(w *Writer, each func(Message) error) error {
	if w.err != nil {
		return w.err
	}
	if err := s.ready(); err != nil {
		return err
	}
	w.finish()
	seq := s.reserve(1)
	setSequence(w.buf, 0, seq)
	if err := s.write(w.buf); err != nil {
		return err
	}
	interrupted := false
	for {
		datagram, err := s.receive()
		if err != nil {
			s.drop()
			return err
		}
		for m := range Messages(datagram) {
			if m.Seq != seq || m.Port != s.port {
				continue
			}
			interrupted = interrupted || m.Flags&unix.NLM_F_DUMP_INTR != 0
			if m.ends() {
				if e := parseError(m); e != nil {
					return e
				}
				if interrupted {
					return ErrInterrupted
				}
				return nil
			}
			if err := each(m); err != nil {
				s.drop() // the rest of the answer goes with the socket
				return err
			}
		}
	}
}

// Send sends all messages of w with one system call and calls refused for each that the kernel refuses. Messages
// that do not ask for an acknowledgement are answered only then.
func (s *Socket) Send(w *Writer, refused func(*Error)) error {
	if w.err != nil || w.Len() == 0 {
		return w.err
	}
	if err := s.ready(); err != nil {
		return err
	}
	w.finish()
	if err := s.write(w.buf); err != nil {
		return err
	}
	for {
		datagram, err := s.receive()
		if errors.Is(err, unix.EAGAIN) {
			return nil
		}
		if err != nil {
			return err
		}
		for m := range Messages(datagram) {
			if e := parseError(m); m.Type == unix.NLMSG_ERROR && e != nil {
				refused(e)
			}
		}
	}
}

// ready opens the socket if it is not open.
func (s *Socket) ready() error {
	if s.closed {
		return fmt.Errorf("netlink socket: %w", net.ErrClosed)
	}
	if s.fd >= 0 {
		return nil
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("open netlink socket: create: %w", err)
	}
	port, err := configure(fd)
	if err != nil {
		_ = unix.Close(fd)
		return fmt.Errorf("open netlink socket: %w", err)
	}
	s.fd, s.port = fd, port
	return nil
}

func configure(fd int) (port uint32, err error) {
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, fmt.Errorf("bind: %w", err)
	}
	// Errors come with the kernel's words and the place, without a copy of the message that failed.
	for _, option := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_CAP_ACK} {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, option, 1); err != nil {
			return 0, fmt.Errorf("set option %d: %w", option, err)
		}
	}
	// A batch is one message, so the send buffer bounds its size; it is only a limit, it takes no memory.
	// Outside the initial user namespace the kernel refuses to force it, and net.core.wmem_max is the limit.
	const most = math.MaxInt32 / 2
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, most) != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, most); err != nil {
			return 0, fmt.Errorf("set send buffer: %w", err)
		}
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return 0, fmt.Errorf("read address: %w", err)
	}
	own, ok := name.(*unix.SockaddrNetlink)
	if !ok {
		return 0, fmt.Errorf("read address: %T is not a netlink address", name)
	}
	return own.Pid, nil
}

// drop gives up a socket whose queue cannot be trusted.
func (s *Socket) drop() {
	if s.fd >= 0 {
		_ = unix.Close(s.fd) // nothing is lost with it
		s.fd = -1
	}
}

// reserve takes n sequence numbers and returns the first.
func (s *Socket) reserve(n int) uint32 {
	first := s.seq + 1
	s.seq += uint32(n)
	return first
}

// write hands the kernel one datagram. After an error the kernel has not looked at it.
func (s *Socket) write(p []byte) error {
	for {
		n, err := unix.Write(s.fd, p)
		switch {
		case err == nil && n == len(p):
			return nil
		case err == nil:
			s.drop()
			return fmt.Errorf("%w: %d of %d bytes sent", ErrUnknownOutcome, n, len(p))
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EMSGSIZE):
			limit, _ := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
			// The kernel doubles the requested size, and keeps 32 bytes for itself.
			return fmt.Errorf("batch of %d bytes exceeds the socket's send buffer of %d: it needs CAP_NET_ADMIN in the "+
				"initial user namespace, or sysctl net.core.wmem_max >= %d: %w", len(p), limit, (len(p)+33)/2, err)
		default:
			s.drop()
			return fmt.Errorf("send %d bytes: %w", len(p), err)
		}
	}
}

// receive returns the next datagram from the kernel. EAGAIN says there is none.
func (s *Socket) receive() ([]byte, error) {
	for {
		n, from, err := unix.Recvfrom(s.fd, s.buf, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("receive: %w", err)
		}
		if n > len(s.buf) {
			return nil, fmt.Errorf("receive: datagram of %d bytes, expected at most %d", n, len(s.buf))
		}
		if kernel, ok := from.(*unix.SockaddrNetlink); ok && kernel.Pid == 0 {
			return s.buf[:n], nil
		}
	}
}
