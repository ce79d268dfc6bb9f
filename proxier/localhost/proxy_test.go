package localhost

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/rules/service"
)

func TestMain(m *testing.M) { lab.Main(m) }

// at returns the address of the nodePort.
func at() netip.AddrPort { return netip.MustParseAddrPort("127.0.0.1:30080") }

// newProxy returns a Proxy whose failures go to the channel, if it has room.
func newProxy(t *testing.T) (*Proxy, chan error) {
	t.Helper()
	failures := make(chan error, 100)
	p := NewProxy(func(err error) {
		select {
		case failures <- err:
		default:
		}
	})
	t.Cleanup(p.Close)
	return p, failures
}

// web returns the nodePort of the Service default/web with these endpoints.
func web(backends ...service.Backend) NodePort {
	return NodePort{Service: service.Name{Namespace: "default", Name: "web"}, Backends: backends}
}

// put serves a nodePort with these endpoints at the address.
func put(t *testing.T, p *Proxy, affinity time.Duration, backends ...service.Backend) {
	t.Helper()
	port := web(backends...)
	port.Affinity = affinity
	if errs := p.Sync(map[netip.AddrPort]NodePort{at(): port}); len(errs) > 0 {
		t.Fatal(errs)
	}
}

// backend starts an endpoint that gives each connection to serve and closes it.
func backend(t *testing.T, serve func(*net.TCPConn)) service.Backend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn.(*net.TCPConn))
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// named returns an endpoint that answers with a name.
func named(t *testing.T, name string) service.Backend {
	return backend(t, func(c *net.TCPConn) { _, _ = c.Write([]byte(name)) })
}

func echo(c *net.TCPConn) { _, _ = io.Copy(c, c) }

func connect(t *testing.T) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", at().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

// ask returns the name of the endpoint of a new connection.
func ask(t *testing.T) string {
	t.Helper()
	name, err := io.ReadAll(connect(t))
	if err != nil {
		t.Fatal(err)
	}
	return string(name)
}

// TestChoice connects often: all endpoints get connections, and with session affinity one of them does until
// it is gone.
func TestChoice(t *testing.T) {
	p, _ := newProxy(t)
	a, b := named(t, "pod-a"), named(t, "pod-b")
	names := func() map[string]int {
		counts := map[string]int{}
		for range 60 {
			counts[ask(t)]++
		}
		return counts
	}
	put(t, p, 0, a, b)
	if got := names(); got["pod-a"] == 0 || got["pod-b"] == 0 || len(got) != 2 {
		t.Errorf("without session affinity: %v, want both", got)
	}
	put(t, p, time.Hour, a, b)
	first := ask(t)
	if got := names(); got[first] != 60 {
		t.Errorf("with session affinity: %v, want only %s", got, first)
	}
	if first == "pod-a" {
		put(t, p, time.Hour, b)
	} else {
		put(t, p, time.Hour, a)
	}
	if got := names(); got[first] != 0 || len(got) != 1 {
		t.Errorf("after the endpoint is gone: %v", got)
	}
}

// TestAffinityExpires picks at times: each pick extends the affinity, and another timeout ends it.
func TestAffinityExpires(t *testing.T) {
	var many []service.Backend
	for i := range 1000 {
		many = append(many, netip.AddrPortFrom(at().Addr(), uint16(1+i)))
	}
	var c choice
	port := web(many...)
	port.Affinity = time.Minute
	c.set(port)
	now := time.Now()
	first := c.pick(now)
	for range 5 {
		now = now.Add(time.Minute)
		if got := c.pick(now); got != first {
			t.Errorf("picked %s, want %s, which was picked a minute ago", got, first)
		}
	}
	again := 0
	for range 20 { // by chance the same endpoint comes again, but not often
		now = now.Add(time.Minute + time.Nanosecond)
		if next := c.pick(now); next == first {
			again++
		} else {
			first = next
		}
	}
	if again > 5 {
		t.Errorf("the affinity does not expire: %d of 20 times the same endpoint", again)
	}
	again = 0
	for i := range 20 {
		port.Affinity = time.Minute + time.Duration(i+1)*time.Second
		c.set(port)
		if next := c.pick(now); next == first {
			again++
		} else {
			first = next
		}
	}
	if again > 5 {
		t.Errorf("another timeout does not end the affinity: %d of 20 times the same endpoint", again)
	}
}

// TestConnectionsOutliveNodePort changes endpoints and removes the nodePort while a connection is open: it
// goes on, and new ones are refused.
func TestConnectionsOutliveNodePort(t *testing.T) {
	p, _ := newProxy(t)
	put(t, p, 0, backend(t, echo))
	conn := connect(t)
	works := func() {
		t.Helper()
		answer := make([]byte, 1)
		if _, err := conn.Write([]byte("!")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, answer); err != nil {
			t.Fatal(err)
		}
	}
	works()
	put(t, p, 0, named(t, "pod-b"))
	works()
	if got := ask(t); got != "pod-b" {
		t.Errorf("a new connection gets %q, want pod-b", got)
	}
	put(t, p, 0)
	works()
	if _, err := net.Dial("tcp", at().String()); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("without endpoints: %v, want %v", err, unix.ECONNREFUSED)
	}
	p.Close()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("after the end of the proxy: %v, want %v", err, unix.ECONNRESET)
	}
}

// TestLimit opens as many connections as a nodePort may have: the next one waits until one of them ends.
// Another nodePort does not wait.
func TestLimit(t *testing.T) {
	p, _ := newProxy(t)
	greet := backend(t, func(c *net.TCPConn) {
		_, _ = c.Write([]byte("!"))
		echo(c)
	})
	other := netip.AddrPortFrom(at().Addr(), at().Port()+1)
	port := web(greet)
	if errs := p.Sync(map[netip.AddrPort]NodePort{at(): port, other: port}); len(errs) > 0 {
		t.Fatal(errs)
	}
	greeted := func(conn net.Conn, wait time.Duration) error {
		_ = conn.SetReadDeadline(time.Now().Add(wait))
		_, err := conn.Read(make([]byte, 1))
		return err
	}
	var conns []*net.TCPConn
	for range maxConnections {
		conns = append(conns, connect(t))
		if err := greeted(conns[len(conns)-1], 10*time.Second); err != nil {
			t.Fatalf("connection %d: %v", len(conns), err)
		}
	}
	next := connect(t)
	if err := greeted(next, 200*time.Millisecond); err == nil {
		t.Errorf("connection %d does not wait", maxConnections+1)
	}
	conn, err := net.Dial("tcp", other.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := greeted(conn, 10*time.Second); err != nil {
		t.Errorf("another nodePort: %v", err)
	}
	conns[0].Close()
	if err := greeted(next, 10*time.Second); err != nil {
		t.Errorf("after one connection has ended: %v", err)
	}
	p.Sync(nil) // does not wait for the connections
}

// TestPortTaken serves two addresses, one of which another process has.
func TestPortTaken(t *testing.T) {
	p, _ := newProxy(t)
	other, err := net.Listen("tcp", at().String())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	at6 := netip.AddrPortFrom(netip.IPv6Loopback(), at().Port())
	port := web(named(t, "pod-a"))
	errs := p.Sync(map[netip.AddrPort]NodePort{at(): port, at6: port})
	if len(errs) != 1 || !errors.Is(errs[0], unix.EADDRINUSE) || errs[0].Addr != at() ||
		errs[0].Service != port.Service {
		t.Fatalf("errors %v, want one about %s", errs, at())
	}
	if n4, n6 := p.Listeners(service.IPv4), p.Listeners(service.IPv6); n4 != 0 || n6 != 1 {
		t.Errorf("%d listeners for IPv4 and %d for IPv6, want 0 and 1", n4, n6)
	}
	if errs := p.Retry(); len(errs) != 1 {
		t.Errorf("errors %v, want one", errs)
	}
	other.Close()
	if errs := p.Retry(); len(errs) > 0 {
		t.Error(errs)
	}
	if got := ask(t); got != "pod-a" {
		t.Errorf("got %q, want pod-a", got)
	}
	if n4, n6 := p.Listeners(service.IPv4), p.Listeners(service.IPv6); n4 != 1 || n6 != 1 {
		t.Errorf("%d listeners for IPv4 and %d for IPv6, want one each", n4, n6)
	}
}

// TestServesAgain closes connections on the server's side, which leaves the port in TIME_WAIT, and listens
// again at once, as after a restart.
func TestServesAgain(t *testing.T) {
	for range 3 {
		p, _ := newProxy(t)
		put(t, p, 0, named(t, "pod-a"))
		if got := ask(t); got != "pod-a" {
			t.Errorf("got %q, want pod-a", got)
		}
		p.Close()
	}
}

// TestNoFileDescriptors takes all file descriptors for a while: afterwards the nodePort is served.
func TestNoFileDescriptors(t *testing.T) {
	p, failures := newProxy(t)
	put(t, p, 0, named(t, "pod-a"))
	conn := connect(t) // its descriptor exists before none are left; the proxy needs one to accept
	if got, err := io.ReadAll(conn); err != nil || string(got) != "pod-a" {
		t.Fatalf("got %q, error %v", got, err)
	}
	client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(client)
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	few := before
	few.Cur = uint64(client) // no descriptor below is free for long; the ones above exceed the limit
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	err = unix.Connect(client, &unix.SockaddrInet4{Addr: at().Addr().As4(), Port: int(at().Port())})
	var failure error
	select {
	case failure = <-failures:
	case <-time.After(10 * time.Second):
	}
	if restored := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); restored != nil {
		t.Fatal(restored)
	}
	if err != nil || !errors.Is(failure, unix.EMFILE) {
		t.Errorf("connect: %v; reported %v, want %v", err, failure, unix.EMFILE)
	}
	if got := ask(t); got != "pod-a" {
		t.Errorf("got %q, want pod-a", got)
	}
}
