package conntrack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/rules/service"
)

// openAt calls OpenAt in a namespace.
func openAt(t testing.TB, ns *lab.Namespace, f service.Frontend) (found map[service.Backend]Open) {
	t.Helper()
	err := ns.Do(func() (err error) {
		found, err = OpenAt(t.Context(), f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func openAll(t testing.TB, ns *lab.Namespace, family service.Family, ours func(service.Frontend) bool) (
	found map[Path]Open) {
	t.Helper()
	err := ns.Do(func() (err error) {
		found, err = OpenAll(t.Context(), family, ours)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// established is the state of an open connection.
func established(p service.Protocol) uint8 {
	switch p {
	case service.TCP:
		return 3
	case service.SCTP:
		return 4
	}
	return 0
}

func frontendOf(p service.Protocol, at netip.AddrPort) service.Frontend {
	return service.Frontend{Addr: at.Addr(), Protocol: p, Port: at.Port()}
}

// translatedZoo returns the flows of the zoo, as open connections.
func translatedZoo() (all []entry) {
	for _, f := range service.Families() {
		for _, p := range service.Protocols() {
			for _, z := range zoo {
				all = append(all, entry{protocol: p, client: in(f, z.from), frontend: in(f, z.to),
					backend: in(f, z.answered), zone: z.zone, translated: z.to != z.answered,
					state: established(p)})
			}
		}
	}
	return all
}

// TestOpen counts flows of all families, protocols and zones: at one frontend, and at all.
func TestOpen(t *testing.T) {
	ns := lab.TestNamespace(t)
	create(t, ns, translatedZoo())
	for _, family := range service.Families() {
		for _, protocol := range service.Protocols() {
			t.Run(fmt.Sprintf("%s/%s", family, protocol), func(t *testing.T) {
				want := map[service.Backend]Open{
					in(family, backend1):           {Connections: 2}, // one in another zone
					in(family, backend2):           {Connections: 1},
					in(family, "10.244.1.11:5354"): {Connections: 1},
				}
				at := frontendOf(protocol, in(family, clusterIP))
				if diff := cmp.Diff(want, openAt(t, ns, at), cmpAddrs); diff != "" {
					t.Errorf("open at %s (-want +got):\n%s", at, diff)
				}
				direct := frontendOf(protocol, in(family, backend1))
				if got := openAt(t, ns, direct); len(got) > 0 {
					t.Errorf("at an address that is no frontend: %v", got)
				}
				mine := frontendOf(protocol, in(family, nodePort))
				got := openAll(t, ns, family, func(f service.Frontend) bool { return f == at || f == mine })
				all := map[Path]Open{{mine, in(family, backend1)}: {Connections: 1}}
				for backend, o := range want {
					all[Path{at, backend}] = o
				}
				if diff := cmp.Diff(all, got, cmpAddrs); diff != "" {
					t.Errorf("open at two frontends (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// cmpAddrs compares addresses as Go does.
var cmpAddrs = cmp.Options{
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
}

// TestOpenStates counts connections in each state of the kernel.
func TestOpenStates(t *testing.T) {
	for protocol, states := range map[service.Protocol]map[uint8]bool{
		service.TCP:  {1: false, 2: false, 3: true, 4: true, 5: true, 6: false, 7: false, 8: false},
		service.SCTP: {1: false, 2: false, 3: false, 4: true, 5: true, 6: true, 7: false},
		service.UDP:  {0: true},
	} {
		for state, open := range states {
			t.Run(fmt.Sprintf("%s/%d", protocol, state), func(t *testing.T) {
				ns := lab.TestNamespace(t)
				create(t, ns, []entry{{protocol: protocol, client: netip.MustParseAddrPort(client),
					frontend: netip.MustParseAddrPort(clusterIP), backend: netip.MustParseAddrPort(backend1),
					translated: true, state: state}})
				got := openAt(t, ns, frontendOf(protocol, netip.MustParseAddrPort(clusterIP)))
				if len(got) > 0 != open {
					t.Errorf("open: %v, want %t", got, open)
				}
			})
		}
	}
}

// TestOpenTraffic counts a client's datagrams: without an answer, with answers, with accounting and without.
func TestOpenTraffic(t *testing.T) {
	for _, family := range service.Families() {
		for _, counted := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/counted=%t", family, counted), func(t *testing.T) {
				ns := lab.TestNamespace(t)
				setAccounting(t, ns, counted)
				to, backend := in(family, clusterIP), in(family, backend1)
				at := frontendOf(service.UDP, to)
				serve(t, ns, "host", to) // for the route
				serve(t, ns, "backend", backend)
				before := len(list(t, ns))

				translate(t, ns, family, to, "10.244.1.11:9")
				if _, err := dial(t, ns, to).Write([]byte("who")); err != nil {
					t.Fatal(err)
				}
				if n := len(list(t, ns)); n != before+1 {
					t.Errorf("%d flows, want one more than %d", n, before)
				}
				if got := openAt(t, ns, at); len(got) > 0 {
					t.Errorf("without an answer: %v", got)
				}

				translate(t, ns, family, to, backend1)
				c := dial(t, ns, to)
				want := Open{Connections: 1}
				for range 3 {
					ask(t, c)
				}
				if counted {
					want.Counted, want.Packets = 1, 6
					headers := map[service.Family]uint64{service.IPv4: 20 + 8, service.IPv6: 40 + 8}[family]
					want.Bytes = 6*headers + 3*uint64(len("who")+len("backend"))
				}
				got := openAt(t, ns, at)
				if diff := cmp.Diff(map[service.Backend]Open{backend: want}, got, cmpAddrs); diff != "" {
					t.Errorf("after three requests (-want +got):\n%s", diff)
				}
			})
		}
	}
}

func setAccounting(t *testing.T, ns *lab.Namespace, on bool) {
	t.Helper()
	value := "0"
	if on {
		value = "1"
	}
	err := ns.Do(func() error {
		return os.WriteFile(filepath.Join(timeoutDir, "nf_conntrack_acct"), []byte(value), 0)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestOpenFilter counts the flows that the kernel sends for a question. Before Linux 5.15 it ignores the
// status.
func TestOpenFilter(t *testing.T) {
	ns := lab.TestNamespace(t)
	create(t, ns, translatedZoo())
	filters := true
	for _, tt := range []struct {
		name string
		only filter
		want int
		old  int // on a kernel that ignores the status
	}{
		{"all", filter{family: service.IPv4}, 3 * len(zoo), 3 * len(zoo)},
		{"translated", filter{family: service.IPv4, status: statusOpen}, 3 * 9, 3 * len(zoo)},
		{"one frontend", filter{family: service.IPv4, protocol: service.TCP, port: 53, status: statusOpen,
			addr: netip.MustParseAddr("10.96.0.10")}, 4, 5},
	} {
		s, n := openSocket(t, ns), 0
		defer s.Close()
		err := dump(s, tt.only, func(*flow) error { n++; return nil })
		if tt.name == "translated" && !lab.Feature(t, "status-filter", n < tt.old, 5, 15) {
			filters = false
		}
		if want := map[bool]int{true: tt.want, false: tt.old}[filters]; err != nil || n != want {
			t.Errorf("%s: dump of %d flows, error %v; want %d", tt.name, n, err, want)
		}
	}
}

func TestOpenEnds(t *testing.T) {
	ns := lab.TestNamespace(t)
	create(t, ns, translatedZoo())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := ns.Do(func() error {
		_, err := OpenAll(ctx, service.IPv4, func(service.Frontend) bool { return true })
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that of the context", err)
	}
}
