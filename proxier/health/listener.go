package health

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// closeTimeout is how long open requests may take when their server stops.
const closeTimeout = 5 * time.Second

// listener is an HTTP server on one address.
type listener struct {
	net.Listener
	server *http.Server
}

// listen opens addr and serves handler there, with connections that count towards limit. An unspecified
// address opens the addresses of its own family only.
func listen(addr netip.AddrPort, handler http.Handler, limit *connLimit) (*listener, error) {
	network, config := "tcp4", net.ListenConfig{}
	if addr.Addr().Is6() {
		network, config.Control = "tcp6", freeBind
	}
	config.SetMultipathTCP(false)
	tcp, err := config.Listen(context.Background(), network, addr.String())
	if err != nil {
		return nil, err
	}
	l := &listener{Listener: tcp, server: newHTTPServer(handler, limit)}
	go func() { _ = l.server.Serve(l) }() // ends with an error whenever the listener is closed
	return l, nil
}

// freeBind lets a socket listen on an IPv6 address that is local by a route only (IPV6_FREEBIND, Linux 4.15).
// IPv4 needs no option for that.
func freeBind(_, _ string, conn syscall.RawConn) error {
	var err error
	if e := conn.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1)
	}); e != nil {
		return e
	}
	return err
}

// stop frees the address at once. Open requests continue.
func (l *listener) stop() { _ = l.Close() }

// drain returns when the open requests are answered, at the latest after closeTimeout.
func (l *listener) drain() { shutDown(l.server) }

func shutDown(server *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		_ = server.Close()
	}
}
