package source

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"k8s.io/client-go/rest"
)

// TestDialed lists from a client whose API server has a name, of which one address refuses connections: the
// client knows both before a request has succeeded, and tells once.
func TestDialed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	l.Close() // nobody answers there
	client, err := NewClientFor(&rest.Config{Host: fmt.Sprintf("http://localhost:%d", port)})
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	client.OnDialed(func() { told++ })
	if got := client.Dialed(); len(got) != 0 {
		t.Errorf("before the first request it dialed %s", got)
	}
	for range 2 {
		if _, err := client.Node(t.Context(), "node-a"); err == nil {
			t.Fatal("a server answered that is not there")
		}
	}
	got := client.Dialed()
	if !slices.Contains(got, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)) || told != len(got) {
		t.Errorf("it dialed %s and told %d times", got, told)
	}
}

// A name that resolves to other addresses each time does not fill the memory; the last address is known.
func TestDialedIsBounded(t *testing.T) {
	d := &dialer{}
	c := &Client{dialer: d}
	for i := range 1000 {
		last := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}), 443)
		d.note(last.String())
		if got := c.Dialed(); !slices.Contains(got, last) || len(got) > maxDialed {
			t.Fatalf("after %s it knows %d addresses: %s", last, len(got), got)
		}
	}
}
