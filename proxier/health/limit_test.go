package health

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener without a network, so that a test can have its own clock.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	conn, open := <-p
	if !open {
		return nil, net.ErrClosed
	}
	return conn, nil
}

func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// TestTimeouts sends requests or parts of them, and checks when the server closes the connection and what it
// answered until then.
func TestTimeouts(t *testing.T) {
	pages := http.NewServeMux()
	pages.HandleFunc("/ok", text("ok"))
	pages.HandleFunc("/large", text(strings.Repeat("a", 1<<20)))
	pages.Handle("/debug/", MetricsHandler(MetricsOptions{Metrics: text("metrics"), Profiling: true}))
	const (
		end   = " HTTP/1.1\r\nHost: node\r\n\r\n"
		start = "GET /ok HTTP/1.1\r\nHost: node\r\nX: "
		late  = writeTimeout + time.Second
		// anything is for a body that ends the time to read it and the time to answer together.
		anything = "anything"
	)
	for _, test := range []struct {
		name, send string
		unread     bool // the client reads after late only
		after      time.Duration
		answer     string // its beginning
	}{
		{"nothing", "", false, readTimeout, ""},
		{"half a request", "GET /ok HTTP/1.1\r\nHost: ", false, readTimeout, ""},
		{"half a body", "POST /ok HTTP/1.1\r\nHost: node\r\nContent-Length: 9\r\n\r\nhalf", false,
			readTimeout, anything},
		{"a request", "GET /ok" + end, false, idleTimeout, "HTTP/1.1 200 OK\r\n"},
		{"a header of 7 kB", start + strings.Repeat("a", 7<<10) + "\r\n\r\n", false,
			idleTimeout, "HTTP/1.1 200 OK\r\n"},
		{"a header of 9 kB", start + strings.Repeat("a", 9<<10) + "\r\n\r\n", false,
			500 * time.Millisecond, "HTTP/1.1 431 Request Header Fields Too Large\r\n"},
		{"answer not read", "GET /large" + end, true, late, ""},
		{"a profile of 30 s", "GET /debug/pprof/goroutine?seconds=30" + end, false, 30*time.Second + idleTimeout,
			"HTTP/1.1 200 OK\r\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				listener := make(pipes)
				server := newHTTPServer(pages, &connLimit{})
				go func() { _ = server.Serve(listener) }()
				client, conn := net.Pipe()
				start := time.Now()
				listener <- conn
				go func() { _, _ = io.WriteString(client, test.send) }()
				if test.unread {
					synctest.Wait()
					time.Sleep(late)
				}
				answer, err := io.ReadAll(bufio.NewReader(client))
				if err != nil && !errors.Is(err, io.ErrClosedPipe) {
					t.Error(err)
				}
				if took := time.Since(start); took != test.after {
					t.Errorf("the server closed the connection after %v, want %v", took, test.after)
				}
				got := string(answer)
				if test.answer != anything && !strings.HasPrefix(got, test.answer) || test.answer == "" && got != "" {
					t.Errorf("answer %.100q, want %q", got, test.answer)
				}
				close(listener)
				_ = server.Close()
			})
		})
	}
}

// namedConn is a connection of a client. The test reads whether it was closed.
type namedConn struct {
	net.Conn
	client string
	closed bool
}

func (c *namedConn) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.ParseIP(c.client), Port: 40000}
}

func (c *namedConn) Close() error {
	c.closed = true
	return nil
}

// TestConnLimit opens connections until there is no room, and checks which one is closed for the next one.
func TestConnLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var limit connLimit
		add := func(client string) *namedConn {
			c := &namedConn{client: client}
			limit.changed(c, http.StateNew)
			time.Sleep(time.Nanosecond) // the next one is younger
			return c
		}
		other := add("192.0.2.2")
		var conns []*namedConn
		for range maxConns - 1 {
			conns = append(conns, add("192.0.2.1"))
		}
		limit.changed(conns[0], http.StateActive)
		closed := func(want ...*namedConn) {
			t.Helper()
			expected := map[*namedConn]bool{}
			for _, c := range want {
				expected[c] = true
			}
			for i, c := range append(conns, other) {
				if c.closed != expected[c] {
					t.Errorf("connection %d of %s: closed %v, want %v", i, c.client, c.closed, expected[c])
				}
			}
		}
		closed()
		start := time.Now()
		add("192.0.2.3")
		if took := time.Since(start); took.Round(time.Millisecond) != graceTime {
			t.Errorf("a new connection waited %v, want %v", took, graceTime)
		}
		closed(conns[1]) // the oldest of the address with the most, except the active one
		limit.changed(conns[1], http.StateClosed)
		limit.changed(conns[2], http.StateIdle)
		add("192.0.2.2")
		closed(conns[1], conns[3])
		limit.changed(other, http.StateClosed) // makes room
		add("192.0.2.4")
		closed(conns[1], conns[3])
		if len(limit.conns) != maxConns || limit.count[addrOf(conns[0])] != maxConns-3 {
			t.Errorf("%d connections, %d of %s", len(limit.conns), limit.count[addrOf(conns[0])], conns[0].client)
		}
	})
}

// TestConnLimitAllActive has requests that are being answered only: the oldest of them is closed.
func TestConnLimitAllActive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var limit connLimit
		var conns []*namedConn
		for range maxConns {
			c := &namedConn{client: "192.0.2.1"}
			limit.changed(c, http.StateNew)
			limit.changed(c, http.StateActive)
			time.Sleep(time.Millisecond)
			conns = append(conns, c)
		}
		limit.changed(&namedConn{client: "192.0.2.2"}, http.StateNew)
		for i, c := range conns {
			if c.closed != (i == 0) {
				t.Errorf("connection %d: closed %v", i, c.closed)
			}
		}
	})
}
