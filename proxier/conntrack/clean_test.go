package conntrack

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/rules/service"
)

const (
	clusterIP = "10.96.0.10:53"
	external  = "203.0.113.1:53"
	nodePort  = "192.0.2.1:30053"
	nodePort2 = "192.0.2.2:30053" // on another address of the node
	backend1  = "10.244.1.11:5353"
	backend2  = "10.244.2.11:5353"
	client    = "10.244.1.12:4000"
)

// zoo are the flows that exist at the start of every case of TestClean, in both families and all three
// protocols.
var zoo = map[string]struct {
	from, to, answered string
	zone               uint16
}{
	"1":                  {client, clusterIP, backend1, 0},
	"2":                  {"10.244.1.12:4002", clusterIP, backend2, 0},
	"untranslated":       {"10.244.1.12:4003", clusterIP, clusterIP, 0},
	"other backend port": {"10.244.1.12:4004", clusterIP, "10.244.1.11:5354", 0},
	"zone":               {"10.244.1.12:4005", clusterIP, backend1, 7},
	"port":               {"10.244.1.12:4006", "10.96.0.10:54", backend1, 0},
	"address":            {"10.244.1.12:4007", "10.96.0.11:53", backend1, 0},
	"direct":             {"10.244.1.12:4008", backend1, backend1, 0},
	"from the frontend":  {clusterIP, "10.244.1.12:4009", "10.244.1.12:4009", 0},
	"external":           {"198.51.100.1:4010", external, backend1, 0},
	"nodePort":           {"198.51.100.1:4011", nodePort, backend1, 0},
	"nodePort host":      {"198.51.100.1:4012", nodePort, nodePort, 0},
	"nodePort 2":         {"198.51.100.1:4013", nodePort2, backend1, 0},
}

// staleText is a StaleFlows of any family and protocol.
type staleText struct {
	frontend string
	keep     []string
}

func TestClean(t *testing.T) {
	for _, tt := range []struct {
		name  string
		stale []staleText
		gone  []string
	}{
		{"nothing", nil, nil},
		{"a backend is gone", []staleText{{clusterIP, []string{backend2}}},
			[]string{"1", "other backend port", "untranslated", "zone"}},
		{"a backend came", []staleText{
			{clusterIP, []string{backend1, backend2, "10.244.3.11:5353", "10.244.1.11:5354"}},
		}, []string{"untranslated"}},
		{"no backend is left", []staleText{{clusterIP, nil}},
			[]string{"1", "2", "other backend port", "untranslated", "zone"}},
		{"a nodePort on one address", []staleText{{nodePort, nil}}, []string{"nodePort", "nodePort host"}},
		{"a backend on the node, at the nodePort", []staleText{{nodePort, []string{nodePort}}},
			[]string{"nodePort"}},
		{"every kind of frontend", []staleText{
			{clusterIP, []string{backend2}}, {external, []string{backend2}},
			{nodePort, []string{backend2}}, {nodePort2, []string{backend2}},
		}, []string{"1", "external", "nodePort", "nodePort 2", "nodePort host", "other backend port",
			"untranslated", "zone"}},
		{"two ports of an address", []staleText{{clusterIP, []string{backend1}}, {"10.96.0.10:54", nil}},
			[]string{"2", "other backend port", "port", "untranslated"}},
		{"two addresses", []staleText{{clusterIP, []string{backend1}}, {"10.96.0.11:53", nil}},
			[]string{"2", "address", "other backend port", "untranslated"}},
		{"a frontend twice", []staleText{{clusterIP, []string{backend1}}, {clusterIP, []string{backend2}}},
			[]string{"other backend port", "untranslated"}},
		{"a frontend without flows", []staleText{{"10.96.0.12:53", nil}}, nil},
	} {
		for _, family := range service.Families() {
			for _, protocol := range service.Protocols() {
				for _, filtered := range []bool{true, false} {
					name := fmt.Sprintf("%s/%s/%s/filtered=%t", tt.name, family, protocol, filtered)
					t.Run(name, func(t *testing.T) {
						gone := tt.gone
						switch protocol {
						case service.TCP:
							gone = nil
						case service.SCTP: // an association cannot move to another endpoint
							gone = slices.DeleteFunc(slices.Clone(gone), untranslated)
						}
						testClean(t, family, staleOf(family, protocol, tt.stale), filtered,
							func(f service.Family, p service.Protocol, name string) bool {
								return f == family && p == protocol && slices.Contains(gone, name)
							})
					})
				}
			}
		}
	}
}

// untranslated reports whether a flow of the zoo goes to its frontend itself.
func untranslated(name string) bool { return zoo[name].to == zoo[name].answered }

// testClean fills a table with the zoo, cleans it and compares the flows that are left with those of the zoo
// for which gone is false.
func testClean(
	t *testing.T, family service.Family, stale []service.StaleFlows, filtered bool,
	gone func(service.Family, service.Protocol, string) bool,
) (former []service.Frontend) {
	t.Helper()
	ns := lab.TestNamespace(t)
	var all []entry
	var want []string
	for _, f := range service.Families() {
		for _, p := range service.Protocols() {
			for name, z := range zoo {
				e := entry{protocol: p, client: in(f, z.from), frontend: in(f, z.to),
					backend: in(f, z.answered), zone: z.zone}
				all = append(all, e)
				if !gone(f, p, name) {
					want = append(want, e.String())
				}
			}
		}
	}
	slices.Sort(want)
	create(t, ns, all)

	deleted, former, err := cleanIn(ns, family, stale, filtered)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, list(t, ns)); diff != "" {
		t.Errorf("flows left (-want +got):\n%s", diff)
	}
	if want := len(all) - len(want); deleted != want {
		t.Errorf("deleted %d flows, want %d", deleted, want)
	}
	return former
}

func staleOf(family service.Family, protocol service.Protocol, texts []staleText) []service.StaleFlows {
	var stale []service.StaleFlows
	for _, text := range texts {
		to := in(family, text.frontend)
		frontend := service.Frontend{Addr: to.Addr(), Protocol: protocol, Port: to.Port()}
		s := service.StaleFlows{Frontend: frontend}
		for _, backend := range text.keep {
			s.Keep = append(s.Keep, in(family, backend))
		}
		stale = append(stale, s)
	}
	return stale
}

func TestCleanSeveral(t *testing.T) {
	keep := []staleText{{clusterIP, []string{backend1, backend2}}}
	var stale []service.StaleFlows
	for _, family := range service.Families() {
		for _, protocol := range service.Protocols() {
			stale = append(stale, staleOf(family, protocol, keep)...)
		}
	}
	testClean(t, service.IPv6, stale, true, func(f service.Family, p service.Protocol, name string) bool {
		return f == service.IPv6 && p != service.TCP &&
			(name == "untranslated" && p == service.UDP || name == "other backend port")
	})
}

// TestCleanFormer cleans frontends that are gone: flows to backends that live stay, and so do flows that were
// not translated. Clean names the frontends that have flows of the former kind.
func TestCleanFormer(t *testing.T) {
	anyPort := netip.AddrPortFrom(netip.MustParseAddrPort(backend1).Addr(), 0).String()
	for _, tt := range []struct {
		name   string
		stale  []staleText
		gone   []string
		former []string
	}{
		{"a backend lives", []staleText{{clusterIP, []string{backend2}}},
			[]string{"1", "other backend port", "zone"}, []string{clusterIP}},
		{"a backend lives, at any port", []staleText{{clusterIP, []string{anyPort}}}, []string{"2"},
			[]string{clusterIP}},
		{"no backend lives", []staleText{{clusterIP, nil}, {nodePort, nil}},
			[]string{"1", "2", "nodePort", "other backend port", "zone"}, nil},
		{"some have no flow", []staleText{{external, []string{backend2}}, {nodePort2, []string{backend1}},
			{"10.96.0.12:53", []string{backend1}}}, []string{"external"}, []string{nodePort2}},
	} {
		for _, family := range service.Families() {
			for _, protocol := range []service.Protocol{service.UDP, service.SCTP} {
				t.Run(fmt.Sprintf("%s/%s/%s", tt.name, family, protocol), func(t *testing.T) {
					stale := staleOf(family, protocol, tt.stale)
					for i := range stale {
						stale[i].Gone = true
					}
					former := testClean(t, family, stale, true,
						func(f service.Family, p service.Protocol, name string) bool {
							return f == family && p == protocol && slices.Contains(tt.gone, name)
						})
					var want []service.Frontend
					for _, text := range tt.former {
						at := in(family, text)
						f := service.Frontend{Addr: at.Addr(), Protocol: protocol, Port: at.Port()}
						want = append(want, f)
					}
					if !slices.Equal(former, want) {
						t.Errorf("former frontends with flows: %v, want %v", former, want)
					}
				})
			}
		}
	}
}

// TestCleanMany cleans more flows than one datagram holds, of a dump and of deletions.
func TestCleanMany(t *testing.T) {
	ns := lab.TestNamespace(t)
	var all []entry
	var want []string
	for i := range uint16(4000) {
		e := entry{
			protocol: service.UDP,
			client:   netip.AddrPortFrom(netip.MustParseAddr("10.244.1.12"), 1000+i),
			frontend: netip.MustParseAddrPort(clusterIP),
			backend:  netip.MustParseAddrPort(backend1),
		}
		if i%3 == 0 {
			e.backend = netip.MustParseAddrPort(backend2)
			want = append(want, e.String())
		}
		all = append(all, e)
	}
	create(t, ns, all)
	slices.Sort(want)
	stale := staleOf(service.IPv4, service.UDP, []staleText{{clusterIP, []string{backend2}}})
	for _, n := range []int{len(all) - len(want), 0} {
		deleted, _, err := cleanIn(ns, service.IPv4, stale, true)
		if err != nil || deleted != n {
			t.Errorf("deleted %d flows, error %v; want %d", deleted, err, n)
		}
		if diff := cmp.Diff(want, list(t, ns)); diff != "" {
			t.Errorf("flows left (-want +got):\n%s", diff)
		}
	}
}

// TestFilter counts the flows that the kernel sends with each filter.
func TestFilter(t *testing.T) {
	ns := lab.TestNamespace(t)
	var all []entry
	for _, f := range service.Families() {
		for _, p := range service.Protocols() {
			for _, z := range zoo {
				all = append(all, entry{protocol: p, client: in(f, z.from), frontend: in(f, z.to),
					backend: in(f, z.answered), zone: z.zone})
			}
		}
	}
	create(t, ns, all)
	one := []staleText{{clusterIP, nil}}
	for _, tt := range []struct {
		name     string
		family   service.Family
		protocol service.Protocol
		stale    []staleText
		want     int
	}{
		{"one frontend", service.IPv4, service.UDP, one, 5},
		{"one port", service.IPv4, service.UDP, append(one, staleText{external, nil}), 7},
		{"one address", service.IPv4, service.UDP, append(one, staleText{"10.96.0.10:54", nil}), 6},
		{"nothing in common", service.IPv4, service.UDP, append(one, staleText{nodePort, nil}), len(zoo)},
		{"one IPv6 frontend", service.IPv6, service.UDP, one, 7},
		{"one SCTP frontend", service.IPv4, service.SCTP, one, 6},
		{"one SCTP IPv6 frontend", service.IPv6, service.SCTP, one, len(zoo)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, n := openSocket(t, ns), 0
			defer s.Close()
			f := newSweep(tt.family, tt.protocol, staleOf(tt.family, tt.protocol, tt.stale)).filter()
			if err := dump(s, f, func(*flow) error { n++; return nil }); err != nil {
				t.Fatal(err)
			}
			if n != tt.want {
				t.Errorf("dump of %d flows, want %d", n, tt.want)
			}
		})
	}
}

// TestDeleteEnded deletes a flow that ended after the dump.
func TestDeleteEnded(t *testing.T) {
	ns := lab.TestNamespace(t)
	create(t, ns, []entry{{
		protocol: service.UDP,
		client:   netip.MustParseAddrPort(client),
		frontend: netip.MustParseAddrPort(clusterIP),
		backend:  netip.MustParseAddrPort(backend1),
	}})
	s, deletions := openSocket(t, ns), openSocket(t, ns)
	defer s.Close()
	defer deletions.Close()
	d := &requests{socket: deletions, family: service.IPv4}
	err := dump(s, filter{family: service.IPv4}, func(f *flow) error {
		other := *f
		other.id = []byte{1, 2, 3, 4} // the identity of another flow with the same tuple
		return errors.Join(d.delete(&other), d.flush())
	})
	if err != nil || d.done != 0 || d.refused != 0 || len(list(t, ns)) != 1 {
		t.Errorf("deleted %d, refused %d, error %v; want nothing", d.done, d.refused, err)
	}
	err = dump(s, filter{family: service.IPv4}, func(f *flow) error {
		return errors.Join(d.delete(f), d.delete(f), d.flush())
	})
	if err != nil || d.done != 1 || d.refused != 0 || len(list(t, ns)) != 0 {
		t.Errorf("deleted %d, refused %d, error %v; want one deleted", d.done, d.refused, err)
	}
	if err := d.delete(&flow{}); err == nil {
		t.Error("delete accepts a flow without a tuple")
	}
}

func TestCleanWithoutPrivilege(t *testing.T) {
	stale := staleOf(service.IPv4, service.UDP, []staleText{{clusterIP, nil}})
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			t.Errorf("give up capabilities: %v", err)
		}
		_, _, err := Clean(t.Context(), service.IPv4, stale)
		result <- err
	}()
	if err := <-result; !errors.Is(err, unix.EPERM) {
		t.Errorf("error %v, want %v", err, unix.EPERM)
	}
}
