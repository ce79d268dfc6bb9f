//go:build e2e

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
)

// tunnels is an HTTP proxy on the node that connects every client to the same server, whatever the client
// asks for.
type tunnels struct {
	addr, to string
	count    atomic.Int32 // of tunnels
}

// startTunnels starts an HTTP proxy, which ends with the test. Set to before the first client connects.
func (c *cluster) startTunnels(t *testing.T) *tunnels {
	t.Helper()
	var listener net.Listener
	must(t, c.lab.Node().Do(func() (err error) {
		listener, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	}))
	t.Cleanup(func() { listener.Close() })
	h := &tunnels{addr: listener.Addr().String()}
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return // the test has ended
			}
			go func() {
				defer client.Close()
				h.tunnel(c, t, client)
			}()
		}
	}()
	return h
}

// tunnel serves one client.
func (h *tunnels) tunnel(c *cluster, t *testing.T, client net.Conn) {
	reader := bufio.NewReader(client)
	request, err := http.ReadRequest(reader)
	if err != nil || request.Method != http.MethodConnect {
		return
	}
	server, err := c.dial(t.Context(), "tcp", h.to)
	if err != nil {
		fmt.Fprint(client, "HTTP/1.1 502 Bad Gateway\r\n\r\n")
		return
	}
	defer server.Close()
	h.count.Add(1)
	fmt.Fprint(client, "HTTP/1.1 200 Connection established\r\n\r\n")
	go func() {
		_, _ = io.Copy(server, reader)
		server.Close()
	}()
	_, _ = io.Copy(client, server)
}
