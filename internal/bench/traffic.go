package main

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// Traffic uses blocking sockets on threads of their own, because the network poller of the Go runtime would
// add considerably to the measured times.

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
}

// again reports whether a signal interrupted a system call. The Go runtime sends signals to its own threads.
func again(err error) bool { return errors.Is(err, unix.EINTR) }

func socket(typ int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	timeout := unix.Timeval{Sec: 5}
	return fd, errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout))
}

func connect(typ int, to netip.AddrPort) (int, error) {
	fd, err := socket(typ)
	if err != nil {
		return -1, err
	}
	if err := dial(fd, to); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// dial connects a socket.
func dial(fd int, to netip.AddrPort) error {
	for {
		err := unix.Connect(fd, sockaddr(to))
		switch {
		case again(err): // the kernel continues to connect; the next call waits for that
		case err == nil, errors.Is(err, unix.EISCONN):
			return nil
		default:
			return fmt.Errorf("connect to %s: %w", to, err)
		}
	}
}

// probe checks that a connection succeeds within probeLimit. The count-th probe has a source port of its own,
// which no other traffic uses: connection tracking keeps a packet from before the rules as untranslated, and
// for two minutes a connection from the same port would have the same fate.
func probe(to netip.AddrPort, count int) error {
	fd, err := socket(unix.SOCK_STREAM)
	if err != nil {
		return err
	}
	defer hangUp(fd)
	const first, ports = 10_000, 20_000 // the kernel assigns ports from 32768
	from := unix.SockaddrInet4{Port: first + count%ports}
	timeout := unix.NsecToTimeval(probeLimit.Nanoseconds())
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout)
	err = errors.Join(err, unix.Bind(fd, &from))
	if err != nil {
		return err
	}
	return dial(fd, to)
}

const probeLimit = 100 * time.Millisecond

// hangUp resets a connection, which leaves no state behind.
func hangUp(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.Close(fd)
}

// goodbye asks the server to reset the connection and waits for that. Without waiting, the accept queue of
// the server would overflow, and new connections would need a second or more.
func goodbye(fd int) {
	_, _ = unix.Write(fd, []byte{0})
	for {
		if _, err := unix.Read(fd, make([]byte, 1)); !again(err) {
			break
		}
	}
	hangUp(fd)
}

// connects opens one connection after another and returns the time that each of them needed. It includes
// connections that fail after the socket timeout of five seconds.
func connects(from *lab.Namespace, to netip.AddrPort, d time.Duration) (took []time.Duration, err error) {
	err = from.Do(func() error {
		for end := time.Now().Add(d); ; {
			start := time.Now()
			if start.After(end) {
				return nil
			}
			fd, err := connect(unix.SOCK_STREAM, to)
			if err != nil && !errors.Is(err, unix.EINPROGRESS) {
				return err
			}
			took = append(took, time.Since(start))
			if err == nil {
				goodbye(fd)
			}
		}
	})
	return took, err
}

// pingPong repeatedly sends a datagram, waits for the answer and returns the round trips per second.
func pingPong(from *lab.Namespace, to netip.AddrPort, d time.Duration) (perSecond float64, err error) {
	err = from.Do(func() error {
		fd, err := connect(unix.SOCK_DGRAM, to)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		buf, trips, start := make([]byte, 64), 0, time.Now()
		for ; time.Since(start) < d; trips++ {
			if _, err := unix.Write(fd, buf); err != nil && !again(err) {
				return fmt.Errorf("send to %s: %w", to, err)
			}
			for {
				_, err = unix.Read(fd, buf)
				if !again(err) {
					break
				}
			}
			if err != nil {
				return fmt.Errorf("receive from %s: %w", to, err)
			}
		}
		perSecond = float64(trips) / time.Since(start).Seconds()
		return nil
	})
	return perSecond, err
}

// stream sends as much as possible through one connection and returns the bytes per second.
func stream(from *lab.Namespace, to netip.AddrPort, d time.Duration) (perSecond float64, err error) {
	err = from.Do(func() error {
		fd, err := connect(unix.SOCK_STREAM, to)
		if err != nil {
			return err
		}
		defer hangUp(fd)
		buf, sent, start := make([]byte, 64<<10), 0, time.Now()
		for time.Since(start) < d {
			n, err := unix.Write(fd, buf)
			if err != nil && !again(err) {
				return fmt.Errorf("send to %s: %w", to, err)
			}
			sent += max(0, n)
		}
		perSecond = float64(sent) / time.Since(start).Seconds()
		return nil
	})
	return perSecond, err
}

// server is the pod that answers. It discards data from TCP and echoes datagrams from UDP.
type server struct{ fds []int }

// serve starts a server. Each of its threads blocks in a socket call until the server is closed.
func serve(ns *lab.Namespace, at netip.AddrPort) (*server, error) {
	s := &server{}
	return s, ns.Do(func() error {
		// Accepted connections inherit the timeout, so that a client that has gone does not block others.
		tcp, err := socket(unix.SOCK_STREAM)
		if err != nil {
			return err
		}
		udp, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		s.fds = []int{tcp, udp}
		err = errors.Join(unix.Bind(tcp, sockaddr(at)), unix.Listen(tcp, 4096), unix.Bind(udp, sockaddr(at)))
		if err != nil {
			return err
		}
		for range 2 {
			go accept(tcp)
		}
		go echo(udp)
		return nil
	})
}

func (s *server) close() {
	for _, fd := range s.fds {
		_ = unix.Shutdown(fd, unix.SHUT_RDWR) // wakes up the waiting threads
		_ = unix.Close(fd)
	}
}

func accept(listener int) {
	buf := make([]byte, 256<<10)
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		switch {
		case again(err), errors.Is(err, unix.ECONNABORTED), errors.Is(err, unix.EAGAIN): // EAGAIN is the timeout
			continue
		case err != nil:
			return
		}
		for {
			n, err := unix.Read(fd, buf)
			if n == 1 || n <= 0 && !again(err) { // a single byte is a goodbye
				break
			}
		}
		hangUp(fd)
	}
}

func echo(fd int) {
	buf := make([]byte, 2048)
	for {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if again(err) {
			continue
		}
		if err != nil || from == nil {
			return
		}
		_ = unix.Sendto(fd, buf[:n], 0, from)
	}
}
