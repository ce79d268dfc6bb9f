package localhost

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/rules/service"
)

// TestHalfClose sends much data, ends its direction, and receives all of it afterwards.
func TestHalfClose(t *testing.T) {
	p, _ := newProxy(t)
	put(t, p, 0, backend(t, func(c *net.TCPConn) {
		all, err := io.ReadAll(c) // ends when the client has ended its direction
		if err == nil {
			_, _ = c.Write(all)
		}
	}))
	sent := bytes.Repeat([]byte("nodePort"), 1<<17) // 1 MiB
	conn := connect(t)
	if _, err := conn.Write(sent); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("got %d bytes back, error %v, want all %d", len(got), err, len(sent))
	}
}

// TestEndpointCloses ends the connection from the endpoint's side first: the client gets all data and the
// end.
func TestEndpointCloses(t *testing.T) {
	p, failures := newProxy(t)
	put(t, p, 0, named(t, "pod-a"))
	conn := connect(t)
	if got, err := io.ReadAll(conn); err != nil || string(got) != "pod-a" {
		t.Errorf("got %q, error %v", got, err)
	}
	conn.Close()
	p.Close()
	if len(failures) > 0 {
		t.Error(<-failures)
	}
}

// TestResets fails a connection in several ways: its client sees a reset, not an end that looks complete.
func TestResets(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().(*net.TCPAddr).AddrPort()
	closed.Close()
	for name, endpoint := range map[string]service.Backend{
		"endpoint does not listen": nobody,
		"endpoint resets": backend(t, func(c *net.TCPConn) {
			_, _ = c.Write([]byte("half of"))
			_ = c.SetLinger(0)
		}),
	} {
		t.Run(name, func(t *testing.T) {
			p, failures := newProxy(t)
			put(t, p, 0, endpoint)
			var got []byte
			conn, err := net.Dial("tcp", at().String())
			if err == nil { // otherwise the reset came even earlier
				defer conn.Close()
				got, err = io.ReadAll(conn)
			}
			if !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("got %q and error %v, want %v", got, err, unix.ECONNRESET)
			}
			select {
			case err := <-failures:
				t.Log(err)
			case <-time.After(10 * time.Second):
				t.Error("the failure is not reported")
			}
		})
	}
}

// TestClientResets resets the connection from the client's side: the endpoint sees a reset.
func TestClientResets(t *testing.T) {
	p, _ := newProxy(t)
	seen := make(chan error, 1)
	put(t, p, 0, backend(t, func(c *net.TCPConn) {
		_, _ = c.Write([]byte("!"))
		_, err := io.ReadAll(c)
		seen <- err
	}))
	conn := connect(t)
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetLinger(0)
	conn.Close()
	if err := <-seen; !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the endpoint sees %v, want %v", err, unix.ECONNRESET)
	}
}
