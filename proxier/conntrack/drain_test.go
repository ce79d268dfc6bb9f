package conntrack

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/rules/service"
)

func TestLeave(t *testing.T) {
	defaults := udpTimeouts{exchange: 30, stream: 120}
	for _, tt := range []struct {
		name     string
		timeouts udpTimeouts
		status   uint32
		timeout  uint32
		want     uint32
	}{
		{"an exchange of this second", defaults, 0, 30, 3},
		{"1 s ago", defaults, 0, 29, 2},
		{"3 s ago", defaults, 0, 27, 0},
		{"20 s ago", defaults, 0, 10, 0},
		{"about to end", defaults, 0, 2, 2},
		{"seen before", defaults, 0, 3, 3},
		{"a stream of this second", defaults, statusAssured, 120, 30},
		{"a stream 25 s ago", defaults, statusAssured, 95, 5},
		{"a stream 30 s ago", defaults, statusAssured, 90, 0},
		{"a stream 85 s ago", defaults, statusAssured, 35, 0},
		{"a stream about to end, or seen before", defaults, statusAssured, 30, 30},
		{"longer than the kernel's timeout", defaults, statusAssured, 500, 30},
		{"set by a rule", defaults, statusFixedTimeout, 29, 29},
		{"short timeouts", udpTimeouts{exchange: 2, stream: 20}, 0, 2, 2},
		{"a stream, with short timeouts", udpTimeouts{exchange: 2, stream: 20}, statusAssured, 20, 20},
		{"long timeouts", udpTimeouts{exchange: 60, stream: 300}, 0, 59, 2},
		{"no timeout in the message", defaults, 0, 0, 0},
	} {
		f := &flow{status: tt.status, timeout: tt.timeout}
		left := tt.timeouts.leave(f)
		if left != tt.want {
			t.Errorf("%s: leaves %d s, want %d", tt.name, left, tt.want)
		}
		if f.timeout = left; tt.timeouts.leave(f) != left {
			t.Errorf("%s: leaves %d s, and then %d", tt.name, left, tt.timeouts.leave(f))
		}
	}
}

func TestReadTimeouts(t *testing.T) {
	dir := t.TempDir()
	if got, want := readTimeouts(dir), (udpTimeouts{exchange: 30, stream: 120}); got != want {
		t.Errorf("without files: %v, want %v", got, want)
	}
	for name, text := range map[string]string{"nf_conntrack_udp_timeout": "45\n",
		"nf_conntrack_udp_timeout_stream": "180\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := readTimeouts(dir), (udpTimeouts{exchange: 45, stream: 180}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestCleanDraining cleans a frontend with a backend that terminates, one that does not and one that is gone.
func TestCleanDraining(t *testing.T) {
	for _, family := range service.Families() {
		ns := lab.TestNamespace(t)
		at := func(text string) netip.AddrPort { return in(family, text) }
		var all []entry
		add := func(port uint16, backend string, status, timeout uint32) {
			from := netip.AddrPortFrom(at(client).Addr(), port)
			all = append(all, entry{protocol: service.UDP, client: from, frontend: at(clusterIP),
				backend: at(backend), status: status, timeout: timeout})
		}
		for i, backend := range []string{backend1, backend2, "10.244.3.11:5353"} {
			base := uint16(1000 * (i + 1))
			add(base, backend, 0, 40) // more than the timeout: not idle at all
			add(base+1, backend, 0, 15)
			add(base+2, backend, statusAssured, 130)
			add(base+3, backend, statusAssured, 60)
		}
		create(t, ns, all)
		stale := []service.StaleFlows{{
			Frontend: service.Frontend{Addr: at(clusterIP).Addr(), Protocol: service.UDP, Port: 53},
			Keep:     []service.Backend{at(backend1), at(backend2)},
			Draining: []service.Backend{at(backend1)},
		}}
		want := map[uint16]uint32{1000: 3, 1002: 30, 2000: 40, 2001: 15, 2002: 130, 2003: 60}
		for _, n := range []int{6, 0} {
			deleted, _, err := cleanIn(ns, family, stale, true)
			if err != nil || deleted != n {
				t.Errorf("%s: deleted %d flows, error %v; want %d", family, deleted, err, n)
			}
			got := timeoutsOf(t, ns, family)
			near := cmp.Comparer(func(a, b uint32) bool { return max(a, b)-min(a, b) <= 2 }) // time passes
			if diff := cmp.Diff(want, got, near); diff != "" {
				t.Errorf("%s: seconds left, by the port of the client (-want +got):\n%s", family, diff)
			}
		}
	}
}

// timeoutsOf returns the seconds that are left for each flow, by the port of its client.
func timeoutsOf(t *testing.T, ns *lab.Namespace, family service.Family) map[uint16]uint32 {
	t.Helper()
	s := openSocket(t, ns)
	defer s.Close()
	out := map[uint16]uint32{}
	err := dump(s, filter{family: family}, func(f *flow) error {
		_, from, _ := parseTuple(f.tuple)
		out[from.Port()] = f.timeout
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestExpireEnded shortens the timeout of a flow that ended after the dump.
func TestExpireEnded(t *testing.T) {
	ns := lab.TestNamespace(t)
	create(t, ns, []entry{{
		protocol: service.UDP,
		client:   netip.MustParseAddrPort(client),
		frontend: netip.MustParseAddrPort(clusterIP),
		backend:  netip.MustParseAddrPort(backend1),
	}})
	s, changes := openSocket(t, ns), openSocket(t, ns)
	defer s.Close()
	defer changes.Close()
	r := &requests{socket: changes, family: service.IPv4}
	err := dump(s, filter{family: service.IPv4}, func(f *flow) error {
		return errors.Join(r.delete(f), r.expire(f, 3), r.flush())
	})
	if err != nil || r.done != 1 || r.refused != 0 || len(list(t, ns)) != 0 {
		t.Errorf("done %d, refused %d, error %v, left %v; want only the deletion",
			r.done, r.refused, err, list(t, ns))
	}
}
