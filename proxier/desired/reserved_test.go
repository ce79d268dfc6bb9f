package desired

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/internal/configtest"
	"github.com/nftproxy/nftproxy/rules/service"
)

// TestReserve reserves frontends while Services have some of them.
func TestReserve(t *testing.T) {
	s := newState()
	e := NewEnvironment(configtest.Parse(t), "node-a", s, service.Families(), nil)
	b := NewBuilder(s, func(Problem) {})
	if !b.Reserve(e.Node.Reserved) {
		t.Error("a builder without a ruleset needs no Rebuild")
	}
	b.Rebuild(e, nil)
	applyProduct(s, "default", 1)
	b.Update(service.Name{Namespace: "default", Name: "web-01"})
	reserve := func(addr string) bool {
		f := service.Frontend{Addr: addrs(addr)[0], Protocol: service.TCP, Port: 7}
		return b.Reserve(map[service.Frontend]service.Reservation{f: {Use: "the API server"}})
	}
	if reserve("198.51.100.99") {
		t.Error("a frontend that nobody has needs a Rebuild")
	}
	if !reserve("198.51.1.7") {
		t.Error("a frontend that a Service has needs no Rebuild")
	}
	b.Rebuild(b.Environment(), nil)
	if _, owned := b.Ruleset().Owner(service.Frontend{Addr: addrs("198.51.1.7")[0], Protocol: service.TCP,
		Port: 7}); owned {
		t.Error("after the Rebuild a Service has a reserved frontend")
	}
}

// TestReservedAddresses reserves the ports of the configuration on all addresses on which Services could have
// them, and the addresses of the API server for one Service.
func TestReservedAddresses(t *testing.T) {
	hostAddrs := addrs("127.0.0.1", "169.254.1.1", "192.0.2.1", "203.0.113.9", "fe80::1", "fe80::2")
	c := configtest.Parse(t, "--metrics-bind-address=127.0.0.1:20249", "--healthz-bind-address=",
		"--nodeport-addresses=primary,localhost,169.254.0.0/16")
	e := NewEnvironment(c, "node-a", newState(), service.Families(), hostAddrs)
	e.ReserveAPIServer([]netip.AddrPort{netip.MustParseAddrPort("[::ffff:198.51.100.6]:6443")})
	var got []string
	for f, r := range e.Node.Reserved {
		got = append(got, f.String()+" "+r.Use)
		if (r.By == service.Name{Namespace: "default", Name: "kubernetes"}) != (f.Port == 6443) {
			t.Errorf("%s is reserved for %s", f, r.By)
		}
	}
	slices.Sort(got)
	const kubelet, metrics = " . tcp . 10250 the kubelet", " . tcp . 20249 the metrics of nftproxy"
	var want []string
	for _, addr := range []string{"127.0.0.1", "::1", "169.254.1.1", "192.0.2.1", "2001:db8::1", "203.0.113.9"} {
		want = append(want, addr+kubelet, addr+metrics)
	}
	want = append(want, "198.51.100.6 . tcp . 6443 the API server")
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("reserved frontends (-want +got):\n%s", diff)
	}
}
