package probe

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/rules/service"
)

// open opens the socket, which keeps the ICMP errors that it gets.
func (a *attempt) open() (err error) {
	domain, level, option := unix.AF_INET, unix.IPPROTO_IP, unix.IP_RECVERR
	if a.to.Addr.Is6() {
		domain, level, option = unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_RECVERR
	}
	kind, protocol := unix.SOCK_STREAM, unix.IPPROTO_TCP
	switch a.to.Protocol {
	case service.UDP:
		kind, protocol = unix.SOCK_DGRAM, unix.IPPROTO_UDP
	case service.SCTP:
		kind, protocol = unix.SOCK_RAW, unix.IPPROTO_SCTP
	}
	a.fd, err = unix.Socket(domain, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("a raw socket sends it, which needs CAP_NET_RAW: run the command as root on the node: %w",
			err)
	}
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	if err := unix.SetsockoptInt(a.fd, level, option, 1); err != nil {
		_ = unix.Close(a.fd)
		return fmt.Errorf("ask for ICMP errors: %w", err)
	}
	return nil
}

// send connects the socket, which sends the SYN of TCP, or sends the packet of another protocol.
func (a *attempt) send() error {
	a.result.Sent = map[service.Protocol]string{
		service.TCP: "SYN", service.UDP: "datagram", service.SCTP: "INIT"}[a.to.Protocol]
	if err := unix.Connect(a.fd, a.sockaddr()); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	var packet []byte
	switch a.to.Protocol {
	case service.TCP:
		return nil
	case service.UDP:
		if a.to.Port == dnsPort {
			a.result.Sent, packet = "DNS query", dnsQuery()
		}
	case service.SCTP:
		// Above the ports that services have, and the kernel's own choice (ip_local_port_range) in most cases.
		source := uint16(33000 + rand.IntN(27000))
		a.tag = rand.Uint32() | 1
		a.result.Source = netip.AddrPortFrom(netip.Addr{}, source)
		packet = sctpInit(source, a.to.Port, a.tag)
	}
	_, err := unix.Write(a.fd, packet)
	if errors.Is(err, unix.EPERM) {
		return nil // rules of this node dropped or rejected it: what comes back shows which
	}
	return err
}

func (a *attempt) sockaddr() unix.Sockaddr {
	port := int(a.to.Port)
	if a.to.Protocol == service.SCTP {
		port = 0 // a raw socket has no ports
	}
	if a.to.Addr.Is4() {
		return &unix.SockaddrInet4{Addr: a.to.Addr.As4(), Port: port}
	}
	return &unix.SockaddrInet6{Addr: a.to.Addr.As16(), Port: port}
}

// Source returns the address from which this node connects to another, in the network namespace of the
// calling thread. It sends nothing.
func Source(to netip.Addr) (netip.Addr, error) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, dnsPort)))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find source address: %w", err)
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}

// source returns the address from which the packet was sent.
func (a *attempt) source() (netip.AddrPort, error) {
	name, err := unix.Getsockname(a.fd)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("find source address: %w", err)
	}
	var own netip.AddrPort
	switch s := name.(type) {
	case *unix.SockaddrInet4:
		own = netip.AddrPortFrom(netip.AddrFrom4(s.Addr), uint16(s.Port))
	case *unix.SockaddrInet6:
		own = netip.AddrPortFrom(netip.AddrFrom16(s.Addr), uint16(s.Port))
	}
	if a.to.Protocol == service.SCTP {
		own = netip.AddrPortFrom(own.Addr(), a.result.Source.Port())
	}
	return own, nil
}

// receive reads what came, and reports whether it is the answer.
func (a *attempt) receive() bool {
	buf := make([]byte, 2048)
	n, _, err := unix.Recvfrom(a.fd, buf, 0)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return false
	case err != nil:
		return a.failed(err)
	case a.to.Protocol == service.UDP:
		a.result.Result = Answered
		return true
	}
	return a.receiveSCTP(buf[:n])
}

const dnsPort = 53

// dnsQuery asks for a name that a DNS server of a cluster has. Which answer comes does not matter: a server
// that does not know the name says so.
func dnsQuery() []byte {
	query := dnsmessage.Message{
		Header: dnsmessage.Header{ID: uint16(rand.Uint32()), RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("kubernetes.default.svc.cluster.local."),
			Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	packet, err := query.Pack()
	if err != nil {
		panic("a constant DNS query cannot be packed: " + err.Error())
	}
	return packet
}
