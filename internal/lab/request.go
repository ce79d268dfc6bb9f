package lab

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Outcome is how a request ended.
type Outcome int

const (
	Failed   Outcome = iota // in a way that is none of the following
	Answered                // by a server of the lab
	Refused                 // by a reset or an ICMP error
	Dropped                 // no answer in time; see the note at answerTimeout
)

func (o Outcome) String() string {
	switch o {
	case Answered:
		return "answered"
	case Refused:
		return "refused"
	case Dropped:
		return "dropped"
	}
	return "failed"
}

// Result is the outcome of one request.
type Result struct {
	Outcome Outcome
	By      string     // the name of the server
	Source  netip.Addr // the sender's address as the server saw it
	Local   netip.Addr // the sender's own address
	Err     error      // why there is no answer
}

// A request waits long for an answer, because a busy machine may stop this process for a second. That does
// not hide lost packets: a retransmission by TCP counts as dropped, and so does a connection that fails later
// than the kernel waits to retransmit a SYN (1 s). Where no answer is expected a request waits less: an
// answer takes well below a millisecond.
//
// Linux loses an ICMPv6 error for a TCP connection of the machine itself (seen on 6.18), because the error
// arrives while connect still holds the socket. The connection is refused only after the retransmission, so
// it counts as dropped. A TCP reset or an ICMPv4 error is not lost.
const (
	answerTimeout  = 3 * time.Second
	sendAgain      = 900 * time.Millisecond
	silenceTimeout = 400 * time.Millisecond
)

// errAborted says that the other side aborted an SCTP association.
var errAborted = errors.New("association aborted")

// errSentAgain says that TCP lost a packet and sent it again.
var errSentAgain = errors.New("a packet was lost")

// Request makes one request with a connection of its own and waits for the answer, at most 3 s. from is a
// party of the lab (see the package comment), which decides the source address; proto is tcp, udp or sctp.
func (l *Lab) Request(from, proto string, to netip.AddrPort) Result {
	return l.request(from, proto, to, answerTimeout)
}

func (l *Lab) request(from, proto string, to netip.AddrPort, timeout time.Duration) Result {
	p, ok := l.parties[from]
	if !ok {
		return Result{Err: fmt.Errorf("the lab has no party %q", from)}
	}
	start := time.Now()
	conn, port, err := l.dial(p, proto, to, start.Add(timeout))
	switch {
	case err != nil && proto != "sctp" && time.Since(start) > sendAgain:
		return Result{Outcome: Dropped, Err: err}
	case err != nil:
		return Result{Outcome: outcome(err), Err: err}
	}
	defer conn.Close()
	result := Result{Local: localAddr(conn)}
	text, err := ask(conn, port, to.Port())
	if err == nil {
		err = sentAgain(conn)
	}
	return result.answered(text, err)
}

// answered completes the result with the answer of a server, or the error that came instead.
func (r Result) answered(text []byte, err error) Result {
	if err == nil {
		r.By, r.Source, err = parseGreeting(text)
	}
	r.Outcome, r.Err = Answered, err
	if err != nil {
		r.Outcome = outcome(err)
	}
	return r
}

// dial connects p with to, from a source port that was not used recently: connection tracking may still know
// another port from an earlier request and translate it as before.
func (l *Lab) dial(p party, proto string, to netip.AddrPort, deadline time.Time) (net.Conn, uint16, error) {
	const first, count = 33000, 32000
	source := netip.IPv4Unspecified()
	if to.Addr().Is6() {
		source = netip.IPv6Unspecified()
	}
	if p.bind {
		source = p.addr(to.Addr())
	}
	for {
		port := uint16(first + l.requests.Add(1)%count)
		local := netip.AddrPortFrom(source, port)
		dialer := net.Dialer{Deadline: deadline}
		network, address := proto, to.String()
		switch proto {
		case "tcp":
			dialer.LocalAddr = net.TCPAddrFromAddrPort(local)
		case "udp":
			dialer.LocalAddr = net.UDPAddrFromAddrPort(local)
		case "sctp":
			dialer.LocalAddr = &net.IPAddr{IP: source.AsSlice()}
			network, address = sctpNetwork(to.Addr()), to.Addr().String()
		default:
			return nil, 0, fmt.Errorf("unknown protocol %q", proto)
		}
		var conn net.Conn
		err := p.ns.Do(func() (err error) {
			if proto == "sctp" && kernelSCTP() {
				conn, err = dialSCTP(local, to, deadline)
			} else {
				conn, err = dialer.Dial(network, address)
			}
			return err
		})
		if errors.Is(err, unix.EADDRINUSE) && time.Now().Before(deadline) {
			continue // a server has this port
		}
		if err != nil {
			return nil, 0, err
		}
		return conn, port, conn.SetDeadline(deadline)
	}
}

// ask returns the answer of the server at the other end of conn.
func ask(conn net.Conn, srcPort, dstPort uint16) ([]byte, error) {
	switch conn := conn.(type) {
	case *net.TCPConn:
		return io.ReadAll(conn)
	case *net.IPConn:
		return askSCTP(conn, srcPort, dstPort)
	case association:
		return receive(conn)
	}
	if _, err := conn.Write([]byte("?\n")); err != nil && !rejectedLocally(err) {
		return nil, err
	}
	return receive(conn)
}

func receive(conn net.Conn) ([]byte, error) {
	buf := make([]byte, 2048)
	n, err := conn.Read(buf)
	return buf[:n], err
}

// rejectedLocally reports whether a send failed because this machine's own rules drop or reject the packet.
// Reading the answer shows which of the two.
func rejectedLocally(err error) bool { return errors.Is(err, unix.EPERM) }

// sentAgain returns errSentAgain if TCP had to send a packet of conn again.
func sentAgain(conn net.Conn) error {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	var info *unix.TCPInfo
	var errInfo error
	if err := raw.Control(func(fd uintptr) {
		info, errInfo = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	}); err != nil {
		return err
	}
	if errInfo != nil {
		return errInfo
	}
	if info.Total_retrans > 0 {
		return errSentAgain
	}
	return nil
}

func parseGreeting(text []byte) (by string, seen netip.Addr, err error) {
	by, ip, _ := strings.Cut(strings.TrimSuffix(string(text), "\n"), " ")
	seen, err = netip.ParseAddr(ip)
	if err != nil {
		return "", netip.Addr{}, fmt.Errorf("answer %q: %w", text, err)
	}
	return by, seen, nil
}

func outcome(err error) Outcome {
	var timeout net.Error
	switch {
	case errors.Is(err, errSentAgain):
		return Dropped
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, errAborted):
		return Refused
	// A machine without an SCTP server refuses the protocol, by ICMP and ICMPv6 respectively.
	case errors.Is(err, unix.ENOPROTOOPT), errors.Is(err, unix.EPROTO):
		return Refused
	case errors.As(err, &timeout) && timeout.Timeout():
		return Dropped
	}
	return Failed
}

func localAddr(conn net.Conn) netip.Addr {
	var ip net.IP
	switch a := conn.LocalAddr().(type) {
	case *net.TCPAddr:
		ip = a.IP
	case *net.UDPAddr:
		ip = a.IP
	case *net.IPAddr:
		ip = a.IP
	}
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}
