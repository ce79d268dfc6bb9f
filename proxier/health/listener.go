package health

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"time"
)

// closeTimeout is how long open requests may take when their server stops.
const closeTimeout = 5 * time.Second

// listener is an HTTP server on one address.
type listener struct {
	net.Listener
	server *http.Server
}

// listen opens addr and serves handler there, with connections that count towards limit. An unspecified address opens the addresses of its own family
// only.
func listen(addr netip.AddrPort, handler http.Handler, limit *connLimit) (*listener, error) {
	network := "tcp6"
	if addr.Addr().Is4() {
		network = "tcp4"
	}
	tcp, err := net.ListenTCP(network, net.TCPAddrFromAddrPort(addr))
	if err != nil {
		return nil, err
	}
	l := &listener{Listener: tcp, server: newHTTPServer(handler, limit)}
	go func() { _ = l.server.Serve(l) }() // ends with an error whenever the listener is closed
	return l, nil
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
