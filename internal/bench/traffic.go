package main

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// Traffic goes through blocking sockets on threads of their own: the runtime's network poller would be a good part of
// what is measured.

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
}

// again tells that a system call was interrupted, by the runtime's own signals.
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
		case again(err): // it goes on; asking again waits for it
		case err == nil, errors.Is(err, unix.EISCONN):
			return nil
		default:
			return fmt.Errorf("connect to %s: %w", to, err)
		}
	}
}

// probe asks whether a connection can be made within probeLimit. It comes from ports that no other traffic comes from,
// each time from another: what is sent before there are rules is tracked untranslated, and for two minutes a
// connection from the same port would go the same way.
func probe(to netip.AddrPort) error {
	fd, err := socket(unix.SOCK_STREAM)
	if err != nil {
		return err
	}
	defer hangUp(fd)
	const first, ports = 10_000, 20_000 // the kernel begins with 32768
	from := unix.SockaddrInet4{Port: first + int(probes.Add(1)%ports)}
	timeout := unix.NsecToTimeval(probeLimit.Nanoseconds())
	err = errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout), unix.Bind(fd, &from))
	if err != nil {
		return err
	}
	return dial(fd, to)
}

const probeLimit = 100 * time.Millisecond

var probes atomic.Uint32

// hangUp closes a connection by a reset: nothing of it stays behind.
func hangUp(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.Close(fd)
}

// goodbye has the server close the connection, by a reset, and waits for that: a server with many connections to
// accept drops new ones, which then take a second or more.
func goodbye(fd int) {
	_, _ = unix.Write(fd, []byte{0})
	for {
		if _, err := unix.Read(fd, make([]byte, 1)); !again(err) {
			break
		}
	}
	hangUp(fd)
}

// connects makes one connection after the other and returns how long each took to be made; one that was not made
// within the five seconds that a socket waits is among them.
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

// pingPong sends a datagram and waits for its answer, again and again, and returns how often in a second.
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
				return fmt.Errorf("answer of %s: %w", to, err)
			}
		}
		perSecond = float64(trips) / time.Since(start).Seconds()
		return nil
	})
	return perSecond, err
}

// stream sends as much as it can through one connection and returns the bytes in a second.
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

// server is the pod that answers: it reads what comes over TCP, and sends back what comes over UDP.
type server struct{ fds []int }

// serve starts a server. Each of its threads blocks in its own socket call until the server is closed.
func serve(ns *lab.Namespace, at netip.AddrPort) (*server, error) {
	s := &server{}
	return s, ns.Do(func() error {
		tcp, err := socket(unix.SOCK_STREAM) // what it accepts inherits the timeout: a client that went away does not hold up others
		if err != nil {
			return err
		}
		udp, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		s.fds = []int{tcp, udp}
		if err := errors.Join(unix.Bind(tcp, sockaddr(at)), unix.Listen(tcp, 4096), unix.Bind(udp, sockaddr(at))); err != nil {
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
		_ = unix.Shutdown(fd, unix.SHUT_RDWR) // which wakes up who waits
		_ = unix.Close(fd)
	}
}

func accept(listener int) {
	buf := make([]byte, 256<<10)
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		switch {
		case again(err), errors.Is(err, unix.ECONNABORTED), errors.Is(err, unix.EAGAIN): // EAGAIN: nobody came
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
