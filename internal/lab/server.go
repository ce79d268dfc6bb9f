package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"

	discoveryv1 "k8s.io/api/discovery/v1"
)

// server is a protocol and an address on which a party listens.
type server struct {
	proto string
	addr  netip.AddrPort
}

func (s server) String() string { return s.proto + " " + s.addr.String() }

// greeting returns the answer of a server, in every protocol: its name and the address that it saw.
func greeting(name string, seen netip.Addr) []byte {
	return fmt.Appendf(nil, "%s %s\n", name, seen.Unmap())
}

// Serve starts a server for proto (tcp, udp or sctp) at an address of the lab, unless it exists already. The
// server runs until the lab is closed. A port without a server refuses requests. Exception: without SCTP
// sockets an address with an SCTP server does not answer on its other SCTP ports.
func (l *Lab) Serve(addr netip.AddrPort, proto string) error {
	name, ok := l.owners[addr.Addr()]
	if !ok {
		return fmt.Errorf("serve %s %s: the lab does not have this address", proto, addr)
	}
	s := server{proto, addr}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.servers[s]; ok {
		return nil
	}
	stop, err := l.start(s, name)
	if err != nil {
		return fmt.Errorf("serve %s: %w", s, err)
	}
	l.servers[s] = stop
	return nil
}

// Stop stops a server. From then on its address refuses requests.
func (l *Lab) Stop(addr netip.AddrPort, proto string) error {
	s := server{proto, addr}
	l.mu.Lock()
	defer l.mu.Unlock()
	stop, ok := l.servers[s]
	if !ok {
		return fmt.Errorf("stop %s: the lab does not have this server", s)
	}
	delete(l.servers, s)
	return stop.Close()
}

// ServeEndpoints starts servers for all ports of all endpoints, ready or not, whose addresses belong to the
// lab.
func (l *Lab) ServeEndpoints(slices []*discoveryv1.EndpointSlice) error {
	for _, slice := range slices {
		for _, endpoint := range slice.Endpoints {
			for _, text := range endpoint.Addresses {
				ip, err := netip.ParseAddr(text)
				if _, ours := l.owners[ip]; err != nil || !ours {
					continue
				}
				if err := l.servePorts(ip, slice.Ports); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (l *Lab) servePorts(ip netip.Addr, ports []discoveryv1.EndpointPort) error {
	for _, port := range ports {
		if port.Port == nil {
			continue
		}
		proto := "tcp"
		if port.Protocol != nil {
			proto = strings.ToLower(string(*port.Protocol))
		}
		if err := l.Serve(netip.AddrPortFrom(ip, uint16(*port.Port)), proto); err != nil {
			return err
		}
	}
	return nil
}

// start opens the socket of s in the namespace of a party and answers on it, until the returned value is
// closed.
func (l *Lab) start(s server, name string) (stop io.Closer, err error) {
	var answer func()
	err = l.parties[name].ns.Do(func() error {
		switch s.proto {
		case "tcp":
			// Go listens for multipath TCP by default, which pods do not use.
			var config net.ListenConfig
			config.SetMultipathTCP(false)
			listener, err := config.Listen(context.Background(), "tcp", s.addr.String())
			stop, answer = listener, func() { serveTCP(listener, name) }
			return err
		case "udp":
			conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(s.addr))
			stop, answer = conn, func() { serveUDP(conn, name) }
			return err
		case "sctp":
			if kernelSCTP() {
				listener, err := listenSCTP(s.addr)
				a := &associations{listener: listener, clients: map[*net.TCPConn]bool{}}
				stop, answer = a, func() { a.serve(name) }
				return err
			}
			conn, err := net.ListenIP(sctpNetwork(s.addr.Addr()), &net.IPAddr{IP: s.addr.Addr().AsSlice()})
			stop, answer = conn, func() { serveSCTP(conn, s.addr.Port(), name) }
			return err
		}
		return fmt.Errorf("unknown protocol %q", s.proto)
	})
	if err != nil {
		return nil, err
	}
	l.running.Go(answer)
	return stop, nil
}

// serveTCP greets each client and closes the connection, until the listener is closed.
func serveTCP(listener net.Listener, name string) {
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // the client has closed the connection already
		}
		conn.Write(greeting(name, conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()))
		conn.Close()
	}
}

// serveUDP answers each datagram, until conn is closed. conn is bound to one address, so answers come from
// there.
func serveUDP(conn *net.UDPConn, name string) {
	buf := make([]byte, 2048)
	for {
		_, from, err := conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			conn.WriteToUDPAddrPort(greeting(name, from.Addr()), from)
		}
	}
}
