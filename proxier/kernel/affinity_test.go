package kernel

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// stickyService returns a Service with session affinity, both families and policy Local, whose endpoints are
// the given pods. Those with an odd number are on this node.
func stickyService(timeout time.Duration, pods ...byte) *service.Service {
	svc := &service.Service{
		Name: service.Name{Namespace: "default", Name: "sticky"}, AffinityTimeout: timeout, ExternalLocal: true,
		ClusterIPs:  []netip.Addr{netip.MustParseAddr("10.96.0.20"), netip.MustParseAddr("fd00:96::20")},
		ExternalIPs: []netip.Addr{netip.MustParseAddr("198.51.100.20"), netip.MustParseAddr("2001:db8::20")},
	}
	port := service.Port{Protocol: service.SCTP, Port: 80}
	for _, pod := range pods {
		for _, addr := range []netip.Addr{
			netip.AddrFrom4([4]byte{10, 244, 0, pod}), netip.AddrFrom16([16]byte{0: 0xfd, 15: pod}),
		} {
			port.Endpoints = append(port.Endpoints, service.Endpoint{
				Backend: netip.AddrPortFrom(addr, 8080), Ready: true, Node: []string{"node-b", "node-a"}[pod%2],
			})
		}
	}
	svc.Ports = []service.Port{port}
	return svc
}

// mustStart builds the ruleset of a Service as a process that starts does, with what the kernel has, and
// programs it.
func mustStart(t *testing.T, c *Conn, svc *service.Service) (*rules.Ruleset, *rules.Delta) {
	t.Helper()
	r := rules.NewRuleset(rules.Config{MasqueradeMark: 1 << 14, Families: service.Families()})
	d, err := c.Diff(service.Families(), func(slots rules.Slots) *rules.Ruleset {
		r.Put(rules.Compile(svc, service.Node{Name: "node-a"}, slots, rules.MaxShare))
		return r
	})
	if err != nil {
		t.Fatal(err)
	}
	mustProgram(t, c, d)
	r.Done()
	return r, d
}

// mustChange puts the Service and programs what changes.
func mustChange(t *testing.T, c *Conn, r *rules.Ruleset, svc *service.Service) *rules.Delta {
	t.Helper()
	r.Put(rules.Compile(svc, service.Node{Name: "node-a"}, r.Slots, rules.MaxShare))
	d := r.Changes()
	mustProgram(t, c, d)
	r.Done()
	return d
}

func mustProgram(t *testing.T, c *Conn, d *rules.Delta) {
	t.Helper()
	if err := c.Apply(d); err != nil {
		t.Fatal(err)
	}
	if err := c.DeleteStale(d); err != nil {
		t.Fatal(err)
	}
}

// mustNft runs commands of nft in a namespace and returns what nft prints.
func mustNft(t *testing.T, ns *lab.Namespace, commands string) string {
	t.Helper()
	out, err := ns.Nft(commands)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// addClients adds a client to the map affinity of each table, as rules do.
const addClients = `add element ip nftproxy affinity { 192.0.2.1 . 10.96.0.20 . sctp . 80 timeout 1h : af4:1 }
		add element ip6 nftproxy affinity { 12345 timeout 1h : 9402:5ccb }`

// The next process finds slots and numbers in the kernel and writes nothing. What changes then, and the
// clients that the kernel remembers, are neither drift nor a reason to write, and no change forgets a client.
func TestAffinity(t *testing.T) {
	ns := lab.TestNamespace(t)
	c := testDial(t, ns, Options{})
	first, _ := mustStart(t, c, stickyService(time.Hour, 5, 4, 3, 2))
	mustChange(t, c, first, stickyService(time.Hour, 1, 2, 3, 5, 6))
	mustNft(t, ns, addClients)
	before := mustGeneration(t, c)
	r, d := mustStart(t, c, stickyService(time.Hour, 1, 2, 3, 5, 6))
	if !d.Empty() || mustGeneration(t, c) != before {
		t.Errorf("a process that starts writes %+v", d)
	}
	for _, s := range []struct {
		what string
		svc  *service.Service
	}{
		{"an endpoint goes", stickyService(time.Hour, 1, 2, 3, 5)},
		{"an endpoint comes", stickyService(time.Hour, 1, 2, 3, 5, 6)},
		{"none is on this node", stickyService(time.Hour, 2)},
		{"another timeout", stickyService(time.Minute, 1, 2, 3)},
		{"no session affinity", stickyService(0, 1, 2, 3)},
		{"no endpoint", stickyService(time.Hour)},
		{"the state of the start", stickyService(time.Hour, 1, 2, 3, 5, 6)},
	} {
		what := s.what
		mustChange(t, c, r, s.svc)
		if left := mustDiff(t, c, r); !left.Empty() {
			t.Errorf("%s: the kernel differs by %+v", what, left)
		}
		mustNft(t, ns, "add table ip another; delete table ip another")
		if drift, err := c.CheckDrift(r); drift != Unknown || err != nil {
			t.Errorf("%s: drift %v, error %v; want %v", what, drift, err, Unknown)
		}
		clients := mustNft(t, ns, "list map ip nftproxy affinity")
		clients += mustNft(t, ns, "list map ip6 nftproxy affinity")
		if strings.Count(clients, "expires") != 2 || !strings.Contains(clients, ": af4:1") {
			t.Errorf("%s: the kernel remembers other clients:\n%s", what, clients)
		}
	}
}

// A process that starts leaves alone shapes that no frontend needs, and uses them when a frontend needs them
// again.
func TestLeftoverShapes(t *testing.T) {
	ns := lab.TestNamespace(t)
	c := testDial(t, ns, Options{})
	first, _ := mustStart(t, c, stickyService(time.Hour, 1, 2))
	mustChange(t, c, first, stickyService(0, 1, 2, 3))
	mustChange(t, c, first, stickyService(0, 1, 2))
	r, d := mustStart(t, c, stickyService(0, 1, 2))
	if !d.Empty() {
		t.Errorf("a process that starts writes %+v", d)
	}
	mustNft(t, ns, "add table ip another")
	if drift, err := c.CheckDrift(r); drift != Unknown || err != nil {
		t.Errorf("shapes that no frontend needs: drift %v, error %v; want %v", drift, err, Unknown)
	}
	mustChange(t, c, r, stickyService(0, 1, 2, 3))
	mustChange(t, c, r, stickyService(time.Minute, 1, 2))
	mustChange(t, c, r, stickyService(time.Hour, 1, 2))
	mustNft(t, ns, "add table ip another; delete table ip another")
	if drift, err := c.CheckDrift(r); drift != Unknown || err != nil {
		t.Errorf("shapes that are needed again: drift %v, error %v; want %v", drift, err, Unknown)
	}
	if _, d = mustStart(t, c, stickyService(time.Hour, 1, 2)); !d.Empty() {
		t.Errorf("the last process writes %+v", d)
	}
	_, d = mustStart(t, c, stickyService(time.Hour, 1)) // deletes the others and their chains
	if shapes := mustNft(t, ns, "list map ip nftproxy shapes"); strings.Count(shapes, "goto") != 2 {
		t.Errorf("shapes after another change, which deletes %v:\n%s", d.Delete, shapes)
	}
}

// A table whose maps have another layout is replaced, for example that of another version.
func TestOtherLayout(t *testing.T) {
	for _, m := range []struct{ name, definition string }{
		{"services", "type ipv4_addr . inet_proto . inet_service : verdict;"},
		{"shapes", "type mark : classid;"},
		{"sticky-slots", "type ipv4_addr . inet_proto . inet_service . mark : mark;"},
		{"sticky-backends", "type ipv4_addr . inet_proto . inet_service . classid : ipv4_addr;"},
		{"affinity", "type ipv4_addr . ipv4_addr . inet_proto . inet_service : classid; flags dynamic;"},
		{"affinity", "type ipv4_addr : classid; flags dynamic,timeout;"},
	} {
		ns := lab.TestNamespace(t)
		c := testDial(t, ns, Options{})
		mustNft(t, ns, fmt.Sprintf("table ip nftproxy { map %s { %s }; chain old { }; }", m.name, m.definition))
		_, d := mustStart(t, c, stickyService(time.Hour, 1, 2))
		want := "set " + m.name + " has another layout"
		if len(d.Reset) != 1 || d.Reset[0] != (rules.BrokenTable{Family: service.IPv4, Reason: want}) {
			t.Errorf("map %s { %s }: replaced tables %v, want one, as %s", m.name, m.definition, d.Reset, want)
		}
		if _, d := mustStart(t, c, stickyService(time.Hour, 1, 2)); !d.Empty() {
			t.Errorf("map %s { %s }: the second start writes %+v", m.name, m.definition, d)
		}
	}
}

// nft lists the maps that nftproxy makes in words that a person reads, and can load the listing.
func TestAffinityListing(t *testing.T) {
	ns := lab.TestNamespace(t)
	c := testDial(t, ns, Options{})
	mustStart(t, c, stickyService(3*time.Hour, 1, 2))
	mustNft(t, ns, addClients)
	listing := mustNft(t, ns, "list ruleset")
	for _, want := range []string{
		`198.51.100.20 . sctp . 80 comment "default/sticky" : 4a00:2`,
		"4a00:2 : goto sticky-local-1-of-2-10800",
		"10.96.0.20 . sctp . 80 . 1 : af4:2",
		"10.96.0.20 . sctp . 80 . af4:2 : 10.244.0.2 . 8080",
		"192.0.2.1 . 10.96.0.20 . sctp . 80 timeout 1h expires",
		"fd00:96::20 . sctp . 80 . 9402:5ccb : fd00::1 . 8080",
		"12345 timeout 1h expires",
		"size " + fmt.Sprint(nftables.AffinitySize),
	} {
		if !strings.Contains(listing, want) {
			t.Errorf("the listing lacks %q:\n%s", want, listing)
		}
	}
	mustNft(t, ns, "flush ruleset\n"+listing)
	if _, d := mustStart(t, c, stickyService(3*time.Hour, 1, 2)); !d.Empty() {
		t.Errorf("the listing, reloaded, differs by %+v", d)
	}
}
