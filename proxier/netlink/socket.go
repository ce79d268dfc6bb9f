package netlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"

	"golang.org/x/sys/unix"
)

// Sizes of the buffer that holds one datagram from the kernel.
const (
	dumpSize  = 64 << 10 // the kernel fills a part of a dump with at most 32 KiB
	errorSize = 1 << 10  // an error with the kernel's words, without a copy of the message
)

// Socket is a lasting NETLINK_NETFILTER socket in the network namespace of the thread that opens it.
//
// After an error that leaves the socket out of step the Socket closes it. The next call opens another one, in
// the namespace of the thread that makes this call.
type Socket struct {
	fd     int // -1: the next call opens it
	closed bool
	room   int    // size of the receive buffer
	port   uint32 // the kernel's address of this socket
	opened int    // how often a socket was opened
	seq    uint32 // the sequence number last used
	buf    []byte // the datagram received last
}

// Open opens a Socket. Opening needs no privilege; using it needs CAP_NET_ADMIN in the user namespace that
// owns the network namespace.
func Open() (*Socket, error) {
	s := &Socket{fd: -1}
	if err := s.ready(); err != nil {
		return nil, err
	}
	return s, nil
}

// Close closes the socket. Do not use it afterwards.
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

// Port returns the kernel's address of the socket, or 0 if the socket is not open.
func (s *Socket) Port() uint32 {
	if s.fd < 0 {
		return 0
	}
	return s.port
}

// Opened tells open sockets apart: it returns how many the Socket has opened so far, or 0 if none is open
// now.
func (s *Socket) Opened() int {
	if s.fd < 0 {
		return 0
	}
	return s.opened
}

// Request sends the one message of w and calls each with the attributes of every message of the answer. The
// attributes are valid during the call only. An error of each ends the request. The error is an *Error when
// the kernel refused the request. ErrInterrupted means that each got the whole dump, but that it is not of
// one moment.
func (s *Socket) Request(w *Writer, each func(attributes []byte) error) error {
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
	a := answer{subsystem: binary.NativeEndian.Uint16(w.buf[4:]) >> 8, resource: -1, each: each}
	for {
		datagram, err := s.receive(dumpSize)
		if err != nil {
			s.drop()
			return err
		}
		for m := range messages(datagram) {
			if m.seq != seq || m.port != s.port {
				continue
			}
			if m.ends() {
				return a.end(m)
			}
			if err := a.take(m); err != nil {
				s.drop() // the rest of the answer is still in the queue
				return err
			}
		}
	}
}

// answer is what a request has received so far.
type answer struct {
	subsystem   uint16
	resource    int // of the first message; -1: there was none
	interrupted bool
	each        func(attributes []byte) error
}

// take delivers a message of the answer.
func (a *answer) take(m message) error {
	if m.typ>>8 != a.subsystem || len(m.payload) < headerSize {
		return fmt.Errorf("unexpected answer of type %#x, %d bytes", m.typ, len(m.payload))
	}
	// The resource of an nftables message is the low half of the generation at its time, that of other
	// messages is 0. The kernel sets NLM_F_DUMP_INTR for all nftables objects except elements (seen on 6.18).
	resource := int(binary.BigEndian.Uint16(m.payload[2:]))
	if a.resource < 0 {
		a.resource = resource
	}
	a.interrupted = a.interrupted || resource != a.resource || m.flags&unix.NLM_F_DUMP_INTR != 0
	return a.each(m.payload[headerSize:])
}

// end returns the result of the request, from the last message of the answer.
func (a *answer) end(m message) error {
	if e := parseError(m); e != nil {
		return e
	}
	if a.interrupted || m.flags&unix.NLM_F_DUMP_INTR != 0 {
		return ErrInterrupted
	}
	return nil
}

// Send sends all messages of w with one system call and calls refused for each that the kernel refuses. The
// kernel answers messages that do not ask for an acknowledgement only if it refuses them.
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
		datagram, err := s.receive(errorSize)
		if errors.Is(err, unix.EAGAIN) {
			return nil
		}
		if err != nil {
			return err
		}
		for m := range messages(datagram) {
			if e := parseError(m); m.typ == unix.NLMSG_ERROR && e != nil {
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
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return fmt.Errorf("open netlink socket: %w (%w)", ErrAbsent, err) // not even nfnetlink
	}
	if err != nil {
		return fmt.Errorf("open netlink socket: create: %w", err)
	}
	port, err := configure(fd)
	if err == nil {
		s.room, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	}
	if err != nil {
		_ = unix.Close(fd)
		return fmt.Errorf("open netlink socket: %w", err)
	}
	s.fd, s.port = fd, port
	s.opened++
	return nil
}

// echoSize is what an echo takes at most in the receive buffer: before Linux 5.10 each is a page with its
// descriptor, then one holds many.
const echoSize = 8 << 10

// EchoRoom returns how many echoes a batch may ask for: if the receive buffer overflows, the answer to the
// batch is lost as well.
func (s *Socket) EchoRoom() int { return s.room / echoSize }

// configure sets a new socket up and returns its address.
func configure(fd int) (port uint32, err error) {
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, fmt.Errorf("bind: %w", err)
	}
	// The kernel reports errors with its words and the place, and without a copy of the message that failed.
	for _, option := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_CAP_ACK} {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, option, 1); err != nil {
			return 0, fmt.Errorf("set option %d: %w", option, err)
		}
	}
	// A batch is one datagram, so the send buffer bounds its size. The size is only a limit: it takes no
	// memory. Outside the initial user namespace the kernel refuses SO_SNDBUFFORCE, and net.core.wmem_max is
	// the limit.
	const most = math.MaxInt32 / 2
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, most) != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, most); err != nil {
			return 0, fmt.Errorf("set send buffer: %w", err)
		}
	}
	// The receive buffer bounds the number of echoes, and takes no memory either.
	const answers = 32 << 20
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, answers) != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, answers); err != nil {
			return 0, fmt.Errorf("set receive buffer: %w", err)
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

// drop closes a socket that may have unread answers to an earlier request.
func (s *Socket) drop() {
	if s.fd >= 0 {
		_ = unix.Close(s.fd) // an error would lose nothing
		s.fd = -1
	}
}

// reserve takes n sequence numbers and returns the first.
func (s *Socket) reserve(n int) uint32 {
	first := s.seq + 1
	s.seq += uint32(n)
	return first
}

// write sends one datagram to the kernel. Unless the error is ErrUnknownOutcome, the kernel has not processed
// it.
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
			return fmt.Errorf("batch of %d bytes exceeds the socket's send buffer of %d: "+
				"it needs CAP_NET_ADMIN in the initial user namespace, or sysctl net.core.wmem_max >= %d: %w",
				len(p), limit, (len(p)+33)/2, err)
		default:
			s.drop()
			return fmt.Errorf("send %d bytes: %w", len(p), err)
		}
	}
}

// receive returns the next datagram from the kernel, of at most size bytes. EAGAIN means that there is none.
func (s *Socket) receive(size int) ([]byte, error) {
	if len(s.buf) < size {
		s.buf = make([]byte, size)
	}
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
