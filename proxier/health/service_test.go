package health

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/rules/service"
)

// home and home2 are addresses of the loopback network on which no other program listens.
var (
	home  = netip.MustParseAddr("127.93.7.1")
	home2 = netip.MustParseAddr("127.93.7.2")
	home6 = netip.MustParseAddr("::1")

	web = service.Name{Namespace: "default", Name: "web"}
	dns = service.Name{Namespace: "kube-system", Name: "dns"}
)

// both returns the state of a Service with n local endpoints in each family.
func both(n int) map[service.Family]int {
	return map[service.Family]int{service.IPv4: n, service.IPv6: n}
}

type reply struct {
	Code   int
	Weight string
	Body   string
}

var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}

// get returns the reply at addr; a refused connection is the zero reply.
func get(t *testing.T, addr netip.AddrPort) reply {
	t.Helper()
	resp, err := client.Get("http://" + addr.String() + "/")
	if errors.Is(err, syscall.ECONNREFUSED) {
		return reply{}
	}
	if err != nil {
		t.Error(err)
		return reply{}
	}
	defer resp.Body.Close()
	checkJSONHeaders(t, resp.Header)
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return reply{resp.StatusCode, resp.Header.Get("X-Load-Balancing-Endpoint-Weight"), string(body)}
}

// freePort returns a port that is free on every address, and not among others.
func freePort(t *testing.T, others ...uint16) uint16 {
	t.Helper()
	for {
		l := occupy(t, "[::]:0")
		port := netip.MustParseAddrPort(l.Addr().String()).Port()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(others, port) {
			return port
		}
	}
}

func occupy(t *testing.T, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func newServiceHealth(t *testing.T) (*ServiceHealth, *atomic.Bool) {
	t.Helper()
	healthy := &atomic.Bool{}
	healthy.Store(true)
	s := NewServiceHealth(healthy.Load)
	t.Cleanup(s.Close)
	return s, healthy
}

func mustSync(t *testing.T, s *ServiceHealth, services map[service.Name]Service, addrs ...netip.Addr) {
	t.Helper()
	for _, err := range s.Sync(services, addrs) {
		t.Fatal(err)
	}
}

// webBody is the start of the body for the Service web, with kube-proxy's indentation.
const webBody = `{
	"service": {
		"namespace": "default",
		"name": "web"
	},
	"localEndpoints": `

func TestServiceReply(t *testing.T) {
	tests := []struct {
		name    string
		n       int
		healthy bool
		want    reply
	}{
		{"local endpoints", 3, true, reply{200, "3", webBody + "3,\n\t\"serviceProxyHealthy\": true\n}"}},
		{"no local endpoint", 0, true, reply{503, "0", webBody + "0,\n\t\"serviceProxyHealthy\": true\n}"}},
		{"proxier unhealthy", 1, false, reply{503, "1", webBody + "1,\n\t\"serviceProxyHealthy\": false\n}"}},
	}
	s, healthy := newServiceHealth(t)
	port := freePort(t)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			healthy.Store(test.healthy)
			mustSync(t, s, map[service.Name]Service{web: {port, both(test.n)}}, home, home6)
			for _, addr := range []netip.Addr{home, home6} {
				if diff := cmp.Diff(test.want, get(t, netip.AddrPortFrom(addr, port))); diff != "" {
					t.Errorf("reply on %s (-want +got):\n%s", addr, diff)
				}
			}
		})
	}
}

// TestServiceSync makes changes one after the other, and after each asks at every address and port.
func TestServiceSync(t *testing.T) {
	s, _ := newServiceHealth(t)
	p := freePort(t)
	q := freePort(t, p)
	one := netip.IPv4Unspecified()
	type services = map[service.Name]Service
	type addrs = []netip.Addr
	type listening map[string]string // address:port -> weight
	swapped := services{web: {q, both(2)}, dns: {p, both(5)}}
	steps := []struct {
		name     string
		services services
		addrs    addrs
		want     listening
		kept     int // listeners that the step did not touch
	}{
		{"nothing", nil, addrs{home}, listening{}, 0},
		{"first", services{web: {p, both(1)}}, addrs{home}, listening{"home:p": "1"}, 0},
		{"count changes", services{web: {p, both(2)}}, addrs{home}, listening{"home:p": "2"}, 1},
		{"second Service", services{web: {p, both(2)}, dns: {q, both(5)}}, addrs{home},
			listening{"home:p": "2", "home:q": "5"}, 1},
		{"they swap ports", swapped, addrs{home}, listening{"home:q": "2", "home:p": "5"}, 0},
		{"address is added", swapped, addrs{home, home2},
			listening{"home:q": "2", "home:p": "5", "home2:q": "2", "home2:p": "5"}, 2},
		{"Service is deleted", services{web: {q, both(2)}}, addrs{home, home2},
			listening{"home:q": "2", "home2:q": "2"}, 2},
		{"address is removed", services{web: {q, both(2)}}, addrs{home2}, listening{"home2:q": "2"}, 1},
		{"all addresses", services{web: {q, both(2)}}, addrs{one}, listening{"home:q": "2", "home2:q": "2"}, 0},
		{"and back to one", services{web: {q, both(2)}}, addrs{home}, listening{"home:q": "2"}, 0},
		{"IPv4 as IPv6 is the same", services{web: {q, both(2)}}, addrs{netip.AddrFrom16(home.As16())},
			listening{"home:q": "2"}, 1},
		{"no port", services{web: {0, both(2)}}, addrs{home}, listening{}, 0},
	}
	for _, step := range steps {
		before := make([]*listener, 0, len(s.open))
		for _, l := range s.open {
			before = append(before, l)
		}
		mustSync(t, s, step.services, step.addrs...)
		got := listening{}
		for host, addr := range map[string]netip.Addr{"home": home, "home2": home2} {
			for name, port := range map[string]uint16{":p": p, ":q": q} {
				if r := get(t, netip.AddrPortFrom(addr, port)); r.Code != 0 {
					got[host+name] = r.Weight
				}
			}
		}
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("%s: listening (-want +got):\n%s", step.name, diff)
		}
		kept := 0
		for _, l := range s.open {
			if slices.Contains(before, l) {
				kept++
			}
		}
		if kept != step.kept {
			t.Errorf("%s: %d listeners kept, want %d", step.name, kept, step.kept)
		}
	}
}

func TestServiceFamilies(t *testing.T) {
	s, _ := newServiceHealth(t)
	port := freePort(t)
	services := map[service.Name]Service{web: {port, both(1)}}
	mustSync(t, s, services, netip.IPv6Unspecified())
	if got := get(t, netip.AddrPortFrom(home, port)); got.Code != 0 {
		t.Errorf(":: answers on an IPv4 address with %d, want none", got.Code)
	}
	mustSync(t, s, services, netip.IPv6Unspecified(), netip.IPv4Unspecified())
	for _, addr := range []netip.Addr{home, home6} {
		if got := get(t, netip.AddrPortFrom(addr, port)); got.Code != 200 {
			t.Errorf("status %d on %s, want 200", got.Code, addr)
		}
	}
}

// TestServiceFamiliesDiffer gives each family a number of its own, and takes one family away and back.
func TestServiceFamiliesDiffer(t *testing.T) {
	s, _ := newServiceHealth(t)
	port := freePort(t)
	type counts = map[service.Family]int
	for _, step := range []struct {
		local    counts
		want     string // on IPv4 and on IPv6
		handlers int
	}{
		{counts{service.IPv4: 0, service.IPv6: 2}, "503 0, 200 2", 2},
		{counts{service.IPv4: 3, service.IPv6: 0}, "200 3, 503 0", 2},
		{counts{service.IPv4: 3}, "200 3, 0 ", 1},
		{counts{service.IPv6: 1}, "0 , 200 1", 1},
		{counts{}, "0 , 0 ", 0},
		{counts{service.IPv4: 1, service.IPv6: 1}, "200 1, 200 1", 2},
	} {
		mustSync(t, s, map[service.Name]Service{web: {port, step.local}}, home, home6)
		v4, v6 := get(t, netip.AddrPortFrom(home, port)), get(t, netip.AddrPortFrom(home6, port))
		got := fmt.Sprintf("%d %s, %d %s", v4.Code, v4.Weight, v6.Code, v6.Weight)
		if got != step.want {
			t.Errorf("%v: IPv4 and IPv6 answer %s, want %s", step.local, got, step.want)
		}
		if len(s.handlers) != step.handlers {
			t.Errorf("%v: %d handlers, want %d", step.local, len(s.handlers), step.handlers)
		}
	}
}

func TestServicePortTaken(t *testing.T) {
	s, _ := newServiceHealth(t)
	port := freePort(t)
	at, at2 := netip.AddrPortFrom(home, port), netip.AddrPortFrom(home2, port)
	other := occupy(t, at.String())

	services := map[service.Name]Service{web: {port, both(4)}}
	wantFailed := func(when string, errs []*ListenError) {
		t.Helper()
		if len(errs) != 1 || errs[0].Service != web || errs[0].Addr != at ||
			!errors.Is(errs[0], syscall.EADDRINUSE) {
			t.Fatalf("%s: errors %v, want one, of %s on %s: address in use", when, errs, web, at)
		}
		if got := get(t, at2); got.Weight != "4" {
			t.Errorf("%s: the other address answers %+v, want weight 4", when, got)
		}
	}
	wantFailed("Sync", s.Sync(services, []netip.Addr{home, home2}))
	wantFailed("Sync again", s.Sync(services, []netip.Addr{home, home2}))
	wantFailed("Retry", s.Retry())
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if errs := s.Retry(); errs != nil {
		t.Fatalf("Retry when the port is free: %v", errs)
	}
	if got := get(t, at); got.Weight != "4" {
		t.Errorf("after Retry: %+v, want weight 4", got)
	}
}

// TestServiceSamePort gives two Services the same port: the first one keeps it, and the other one gets it
// afterwards.
func TestServiceSamePort(t *testing.T) {
	s, _ := newServiceHealth(t)
	port := freePort(t)
	at := netip.AddrPortFrom(home, port)
	mustSync(t, s, map[service.Name]Service{web: {port, both(1)}}, home)
	errs := s.Sync(map[service.Name]Service{web: {port, both(1)}, dns: {port, both(2)}}, []netip.Addr{home})
	if len(errs) != 1 || errs[0].Service != dns {
		t.Fatalf("errors %v, want one, of %s", errs, dns)
	}
	if got := get(t, at); got.Weight != "1" {
		t.Errorf("reply %+v, want that of %s", got, web)
	}
	mustSync(t, s, map[service.Name]Service{dns: {port, both(2)}}, home)
	if got := get(t, at); got.Weight != "2" {
		t.Errorf("reply %+v, want that of %s", got, dns)
	}
}

// TestServiceClose checks that an open request is answered, a new one is refused, and Close waits.
func TestServiceClose(t *testing.T) {
	asked, goOn := make(chan struct{}), make(chan struct{})
	s := NewServiceHealth(func() bool {
		close(asked)
		<-goOn
		return true
	})
	at := netip.AddrPortFrom(home, freePort(t))
	mustSync(t, s, map[service.Name]Service{web: {at.Port(), both(1)}}, home)

	answered, closed := make(chan reply, 1), make(chan struct{})
	go func() { answered <- get(t, at) }()
	<-asked
	mustSync(t, s, nil)
	if got := get(t, at); got.Code != 0 {
		t.Errorf("new request: status %d, want a refused connection", got.Code)
	}
	go func() { s.Close(); close(closed) }()
	select {
	case <-closed:
		t.Error("Close returned before the open request was answered")
	case <-time.After(50 * time.Millisecond):
	}
	close(goOn)
	if got := <-answered; got.Code != 200 {
		t.Errorf("open request: status %d, want 200", got.Code)
	}
	<-closed
}
