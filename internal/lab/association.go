package lab

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// kernelSCTP reports whether the module sctp of the kernel is loaded. Then the kernel aborts the associations
// of the packets in sctp.go, which it does not know: the lab uses SCTP sockets instead. The lab does not load
// the module.
func kernelSCTP() bool {
	_, err := os.Stat("/proc/net/sctp")
	return err == nil
}

// The kernel sends an INIT again after initAgain, in milliseconds. Linux loses an ICMP error that arrives
// while connect still holds the socket, so a refused connection may fail only then, which is before the lab
// stops waiting. A connection that is accepted later than sctpSendAgain lost a packet.
const (
	initAgain     = 2500
	sctpSendAgain = 2 * time.Second
)

// association is a connected SCTP socket. Package net takes it for one of TCP, whose calls it shares.
type association struct{ *net.TCPConn }

// Read reads a message. That the other side aborted the association is the error errAborted.
func (a association) Read(b []byte) (int, error) {
	n, err := a.TCPConn.Read(b)
	return n, aborted(err)
}

// Write sends a message. That the other side aborted the association is the error errAborted.
func (a association) Write(b []byte) (int, error) {
	n, err := a.TCPConn.Write(b)
	return n, aborted(err)
}

func aborted(err error) error {
	if errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) {
		return errors.Join(errAborted, err)
	}
	return err
}

// listenSCTP listens in the namespace of this thread.
func listenSCTP(addr netip.AddrPort) (*net.TCPListener, error) {
	fd, err := socketSCTP(addr)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "sctp")
	defer file.Close()
	if err := unix.Listen(fd, 64); err != nil {
		return nil, os.NewSyscallError("listen", err)
	}
	listener, err := net.FileListener(file)
	if err != nil {
		return nil, err
	}
	return listener.(*net.TCPListener), nil
}

// dialSCTP connects a socket of the namespace of this thread that is bound to local.
func dialSCTP(local, to netip.AddrPort, deadline time.Time) (net.Conn, error) {
	// An association has all addresses of a machine if its socket is bound to none, and rules translate one.
	// Another socket finds the address, or that there is no route.
	from := net.UDPAddrFromAddrPort(netip.AddrPortFrom(local.Addr(), 0))
	route, err := net.DialUDP("udp", from, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return nil, err
	}
	defer route.Close()
	source := route.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
	fd, err := socketSCTP(netip.AddrPortFrom(source, local.Port()))
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "sctp")
	defer file.Close()
	start := time.Now()
	if err := connect(fd, sockaddr(to), deadline); err != nil {
		return nil, os.NewSyscallError("connect", err)
	}
	if time.Since(start) > sctpSendAgain {
		return nil, errSentAgain
	}
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	return association{conn.(*net.TCPConn)}, nil
}

// connect connects a socket that does not block.
func connect(fd int, to unix.Sockaddr, deadline time.Time) error {
	err := unix.Connect(fd, to)
	for errors.Is(err, unix.EINPROGRESS) || errors.Is(err, unix.EINTR) {
		left := time.Until(deadline)
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		events := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, errPoll := unix.Poll(events, int(left.Milliseconds())+1)
		if errPoll != nil && !errors.Is(errPoll, unix.EINTR) {
			return errPoll
		}
		if n > 0 {
			number, errOption := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
			if errOption != nil || number == 0 {
				return errOption
			}
			return unix.Errno(number)
		}
	}
	return err
}

// socketSCTP returns a socket, which does not block, of the namespace of this thread that is bound to addr.
func socketSCTP(addr netip.AddrPort) (int, error) {
	family, level, errors := unix.AF_INET, unix.IPPROTO_IP, unix.IP_RECVERR
	if addr.Addr().Is6() {
		family, level, errors = unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_RECVERR
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_SCTP)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil && family == unix.AF_INET6 {
		err = unix.SetsockoptInt(fd, level, unix.IPV6_V6ONLY, 1)
	}
	if err == nil {
		const rtoInfo = 0 // SCTP_RTOINFO, a struct sctp_rtoinfo; zero keeps what is set
		value := make([]byte, 16)
		binary.NativeEndian.PutUint32(value[4:], initAgain)
		err = unix.SetsockoptString(fd, unix.IPPROTO_SCTP, rtoInfo, string(value))
	}
	if err == nil {
		// Otherwise the kernel tries on when an ICMP error says that a port is unreachable.
		err = unix.SetsockoptInt(fd, level, errors, 1)
	}
	if err == nil {
		err = unix.Bind(fd, sockaddr(addr))
	}
	if err != nil {
		unix.Close(fd)
		return 0, os.NewSyscallError("bind", err)
	}
	return fd, nil
}

func sockaddr(addr netip.AddrPort) unix.Sockaddr {
	if addr.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()}
}

// associations are the clients of a server.
type associations struct {
	listener *net.TCPListener
	mu       sync.Mutex
	clients  map[*net.TCPConn]bool // nil: closed
}

// serve greets each client, and again for each message, until the server is closed.
func (a *associations) serve(name string) {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		conn, err := a.listener.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || !a.add(conn) {
			continue
		}
		running.Go(func() {
			defer conn.Close()
			text := greeting(name, conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr())
			buf := make([]byte, 2048)
			for err := error(nil); err == nil; _, err = conn.Read(buf) {
				conn.Write(text)
			}
		})
	}
}

// add keeps a client, or closes it if the server is closed.
func (a *associations) add(conn *net.TCPConn) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.clients == nil {
		conn.Close()
		return false
	}
	a.clients[conn] = true
	return true
}

// Close aborts all associations.
func (a *associations) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	err := a.listener.Close()
	for conn := range a.clients {
		conn.SetLinger(0)
		conn.Close()
	}
	a.clients = nil
	return err
}
