package localhost

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/nftproxy/nftproxy/rules/service"
)

// connectTimeout is how long an endpoint may take to accept a connection, as in kube-proxy.
const connectTimeout = 5 * time.Second

// relay connects client with an endpoint and copies in both directions, until both have ended, one of them
// fails, or ctx ends. It closes client. After an error it resets both connections, so that neither side takes
// what it got for all that the other sent.
func relay(ctx context.Context, client *net.TCPConn, to service.Backend) error {
	defer client.Close()
	dialer := net.Dialer{Timeout: connectTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", to.String())
	if err != nil {
		_ = client.SetLinger(0)
		return err
	}
	endpoint := conn.(*net.TCPConn)
	defer endpoint.Close()
	stop := context.AfterFunc(ctx, func() { reset(client, endpoint) })
	defer stop()
	sent := make(chan error, 1)
	go func() { sent <- half(endpoint, client, "to", to) }()
	received := half(client, endpoint, "from", to)
	if err := <-sent; err != nil {
		return err
	}
	return received
}

// half copies one direction until its end, and passes the end on. After an error it resets both connections,
// which ends the other direction as well.
func half(dst, src *net.TCPConn, direction string, endpoint service.Backend) error {
	_, err := io.Copy(dst, src)
	if err == nil {
		err = dst.CloseWrite()
	}
	if err != nil {
		reset(dst, src)
		return fmt.Errorf("copy %s endpoint %s: %w", direction, endpoint, err)
	}
	return nil
}

// reset ends connections with a reset, so that the peers see an error.
func reset(conns ...*net.TCPConn) {
	for _, c := range conns {
		_ = c.SetLinger(0)
		_ = c.Close()
	}
}
