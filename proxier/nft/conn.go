package nft

import (
	"errors"
	"fmt"
	"math"
	"net"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/netfilter"
	"github.com/nftproxy/nftproxy/rules"
)

// readBufferSize holds one datagram. The kernel fills a dump with at most 32 KiB at a time.
const readBufferSize = 64 << 10

// Options say where a Conn works.
type Options struct {
	// NetNS is the file descriptor of a network namespace; it must stay open as long as the Conn.
	// Zero is the namespace of the calling thread.
	NetNS int
	// Own makes the tables the Conn's own, where the kernel can: nobody else can change
	// them, and they stay when the Conn is closed.
	Own bool
}

// Conn is one lasting nftables socket. It is owned by one goroutine: it is not safe for concurrent use.
//
// The kernel works on a request inside the system call that sends it, so when that call returns the answer is
// queued, and nothing here ever waits. After an error that leaves the socket out of step, it is closed, and
// opened again by the next call.
//
// The socket is a raw one, with no library between: a batch of 44 MB is one write, and a dump is read into one
// buffer without a copy or an allocation for each message.
type Conn struct {
	opts   Options
	own    bool                  // tables are to be owned
	owned  map[rules.Family]bool // the tables that have, or had, an owner and persist
	fd     int                   // -1: to be opened by the next call
	closed bool
	port   uint32 // the kernel's address of this socket
	seq    uint32 // the sequence number last used
	buf    []byte // answers

	commits uint32 // transactions since Look was last called
	seen    uint32 // the generation that Look saw
	req     []byte // the request of a dump
}

// Dial opens a Conn. That needs no privilege; using it needs CAP_NET_ADMIN in the user namespace that owns the
// network namespace, and says ErrPermission without it.
func Dial(opts Options) (*Conn, error) {
	c := &Conn{opts: opts, fd: -1, buf: make([]byte, readBufferSize), owned: map[rules.Family]bool{}}
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.own = opts.Own && c.canOwn()
	return c, nil
}

// Close closes the socket. The Conn must not be used after it.
func (c *Conn) Close() error {
	if c.closed {
		return nil
	}
	c.closed = true
	if c.fd < 0 {
		return nil
	}
	fd := c.fd
	c.fd = -1
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("close nftables socket: %w", err)
	}
	return nil
}

// Commit applies a batch as one transaction: all of it or, with an error, nothing. An empty batch costs nothing.
//
// The error is an *Error when the kernel refused the batch, ErrStale (by errors.Is) when the generation given to
// Batch.Begin has passed, and ErrUnknownOutcome when the answer was lost: then the table must be read to know.
func (c *Conn) Commit(b *Batch) error {
	if err := c.transact(b, true); err != nil {
		return fmt.Errorf("commit nftables batch: %w", err)
	}
	if b.Len() > 0 {
		c.commits++
	}
	return nil
}

// Check asks whether the kernel would take a batch, and changes nothing: without its end the kernel validates the
// batch and drops it. Errors are those of Commit.
//
// Since Linux 6.4 it does not notice a rule in the wrong hook if the batch makes the table itself (seen on 6.18; nft -c
// is the same): what validation finds is reported by doing the batch once more, in a table that has forgotten it.
func (c *Conn) Check(b *Batch) error {
	if err := c.transact(b, false); err != nil {
		return fmt.Errorf("check nftables batch: %w", err)
	}
	return nil
}

func (c *Conn) transact(b *Batch, commit bool) error {
	if b.err != nil {
		return b.err
	}
	if b.Len() == 0 {
		return nil
	}
	if err := c.ready(); err != nil {
		return err
	}
	first := c.reserve(b.Len() + 2)
	if err := c.send(b.seal(first, commit)); err != nil {
		return err
	}
	return c.outcome(b, first)
}

// outcome reads the answers to a batch whose BATCH_BEGIN has sequence number first. Every message that failed has
// an answer, and so has the last one, failed or not; an error of the commit itself answers BATCH_BEGIN, before it.
func (c *Conn) outcome(b *Batch, first uint32) error {
	var failed *Error
	var lost error
	for last := first + uint32(b.Len()); ; {
		datagram, err := netfilter.Receive(c.fd, c.buf)
		if errors.Is(err, unix.ENOBUFS) {
			// More answers than the receive buffer holds. Those that came first are still there to be read.
			lost = err
			continue
		}
		if errors.Is(err, unix.EAGAIN) && failed != nil {
			return failed // out of memory: the one answer is that of BATCH_BEGIN
		}
		if err != nil {
			c.drop()
			return fmt.Errorf("%w: %w", ErrUnknownOutcome, errors.Join(lost, err))
		}
		for m := range netfilter.Messages(datagram) {
			i := int32(m.Seq - first) // below zero: a message of an earlier batch
			if m.Port != c.port || m.Type != unix.NLMSG_ERROR || i < 0 || int(i) > b.Len() {
				continue
			}
			if e := parseError(m); e != nil {
				failed = b.failed(failed, e, int(i)-1)
			}
			if m.Seq != last {
				continue
			}
			if failed != nil {
				return failed
			}
			return nil
		}
	}
}

// ready opens the socket if there is none.
func (c *Conn) ready() error {
	if c.closed {
		return fmt.Errorf("nftables socket: %w", net.ErrClosed)
	}
	if c.fd >= 0 {
		return nil
	}
	var fd int
	var port uint32
	err := netfilter.In(c.opts.NetNS, func() (err error) {
		fd, port, err = open()
		return err
	})
	if err != nil {
		return fmt.Errorf("open nftables socket: %w", err)
	}
	c.fd, c.port = fd, port
	return nil
}

// drop gives up a socket whose queue cannot be trusted.
func (c *Conn) drop() {
	if c.fd >= 0 {
		_ = unix.Close(c.fd) // nothing is lost with it
		c.fd = -1
	}
}

// reserve takes n sequence numbers and returns the first.
func (c *Conn) reserve(n int) uint32 {
	first := c.seq + 1
	c.seq += uint32(n)
	return first
}

// send hands the kernel one datagram. With an error the kernel has not looked at it.
func (c *Conn) send(p []byte) error {
	for {
		n, err := unix.Write(c.fd, p)
		switch {
		case err == nil && n == len(p):
			return nil
		case err == nil:
			c.drop()
			return fmt.Errorf("%w: %d of %d bytes sent", ErrUnknownOutcome, n, len(p))
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EMSGSIZE):
			limit, _ := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
			// The kernel doubles what is asked for, and keeps 32 bytes for itself.
			return fmt.Errorf("batch of %d bytes exceeds the socket's send buffer of %d: needs CAP_NET_ADMIN in the "+
				"initial user namespace, or sysctl net.core.wmem_max >= %d: %w", len(p), limit, (len(p)+33)/2, err)
		default:
			c.drop()
			return fmt.Errorf("send %d bytes: %w", len(p), err)
		}
	}
}

// open opens a socket in the network namespace of the calling thread.
func open() (fd int, port uint32, err error) {
	fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return -1, 0, fmt.Errorf("create: %w", err)
	}
	if port, err = setUp(fd); err != nil {
		_ = unix.Close(fd)
		return -1, 0, err
	}
	return fd, port, nil
}

func setUp(fd int) (port uint32, err error) {
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, fmt.Errorf("bind: %w", err)
	}
	// Errors with the kernel's words and the place, without a copy of the message that failed.
	for _, option := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_CAP_ACK} {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, option, 1); err != nil {
			return 0, fmt.Errorf("set option %d: %w", option, err)
		}
	}
	// A batch is one message, so the send buffer bounds its size; it is a limit only, no memory is taken.
	// Outside the initial user namespace forcing is refused and net.core.wmem_max is the most there is.
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
		return 0, fmt.Errorf("read address: %T is not netlink", name)
	}
	return own.Pid, nil
}
