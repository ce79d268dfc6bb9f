package rules_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// product is a Service with ports, external IPs and endpoints.
func product(namespace string, ports, externalIPs, endpoints int) *service.Service {
	svc := &service.Service{Name: service.Name{Namespace: namespace, Name: "product"},
		ClusterIPs: addrs("10.96.0.10")}
	for i := range externalIPs {
		svc.ExternalIPs = append(svc.ExternalIPs, netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}))
	}
	for p := range ports {
		port := service.Port{Name: fmt.Sprint(p), Protocol: service.TCP, Port: uint16(p + 1)}
		for i := range endpoints {
			addr := netip.AddrFrom4([4]byte{10, 244, byte(i >> 8), byte(i)})
			port.Endpoints = append(port.Endpoints,
				service.Endpoint{Backend: netip.AddrPortFrom(addr, 80), Ready: true, Serving: true})
		}
		svc.Ports = append(svc.Ports, port)
	}
	return svc
}

// elementsOf counts the elements of a Service in a Ruleset of its own.
func elementsOf(c *rules.Compiled) int {
	r := rules.NewRuleset(testConfig())
	before := r.Size()
	r.Put(c)
	return r.Size() - before
}

// A small Service does not make a million elements: it keeps its ClusterIP and then as many external IPs as
// its share admits, and one problem names the first that it does not get.
func TestShareOfProduct(t *testing.T) {
	svc := product("default", 20, 100, 500)
	c := rules.Compile(svc, service.Node{}, noSlots, rules.MaxShare)
	listed, frontends := 20+1+100+500, 20*101
	want := rules.Demand{Listed: listed, Frontends: frontends, Elements: frontends * 501}
	if c.Demand != want {
		t.Errorf("demand is %+v, want %+v", c.Demand, want)
	}
	programmed := listed * rules.MaxShare / 501
	if len(c.Entries) != programmed || c.Refused.Limit != frontends-programmed {
		t.Errorf("%d frontends are programmed and %d refused, want %d and %d",
			len(c.Entries), c.Refused.Limit, programmed, frontends-programmed)
	}
	for i, e := range c.Entries {
		if atClusterIP := e.Frontend.Addr == svc.ClusterIPs[0]; atClusterIP != (i < len(svc.Ports)) {
			t.Fatalf("frontend %d is %s: the ClusterIP comes first, with all ports", i, e.Frontend)
		}
	}
	problem := fmt.Sprintf("198.18.0.97 . tcp . 3 and %d more frontends are not programmed: all %d would need "+
		"%d elements, more than %d for this Service with its %d ports, addresses and endpoints",
		frontends-programmed-1, frontends, frontends*501, listed*rules.MaxShare, listed)
	if diff := cmp.Diff([]string{problem}, c.Problems); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
	if n := elementsOf(c); n > listed*rules.MaxShare+10 {
		t.Errorf("%d elements", n)
	}
}

// What a compile allocates is bounded by what the object lists, not by the product.
func TestShareBoundsAllocation(t *testing.T) {
	svc := product("default", 200, 200, 200) // 8 million elements in 20 kB
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	rules.Compile(svc, service.Node{}, noSlots, rules.MinShare)
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 8<<20 {
		t.Errorf("the compile allocates %d MB", n>>20)
	}
}

// Every size that somebody has in earnest is programmed completely.
func TestShareAdmitsRealServices(t *testing.T) {
	nodeAddrs := func(n int) service.Node {
		var node service.Node
		for i := range n {
			node.NodePortAddrs = append(node.NodePortAddrs, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
		}
		return node
	}
	for _, test := range []struct {
		what                  string
		ports, ips, endpoints int
		nodeAddrs             int
		sticky                bool
	}{
		{"no endpoints", 1, 0, 0, 1, false},
		{"one endpoint", 1, 0, 1, 1, true},
		{"ten ports, sticky", 10, 2, 30, 3, true},
		{"12,000 endpoints, four ports, nodePorts on eight addresses", 4, 1, 12000, 8, false},
		{"65,535 endpoints", 1, 0, 65535, 1, true},
		{"an ingress on 250 nodes with the addresses of all as external IPs", 2, 250, 250, 1, false},
		{"a range of 500 ports", 500, 1, 20, 2, false},
		{"100 ports with 100 endpoints", 100, 1, 100, 1, false},
	} {
		t.Run(test.what, func(t *testing.T) {
			svc := product("default", test.ports, test.ips, test.endpoints)
			if test.sticky {
				svc.AffinityTimeout = 10800e9
			}
			for i := range svc.Ports {
				svc.Ports[i].NodePort = 30000 + uint16(i)
			}
			c := rules.Compile(svc, nodeAddrs(test.nodeAddrs), noSlots, rules.MaxShare)
			if want := test.ports * (1 + test.ips + test.nodeAddrs); len(c.Entries) != want || c.Problems != nil {
				t.Errorf("%d of %d frontends are programmed: %s", len(c.Entries), want, c.Problems)
			}
			r := rules.NewRuleset(testConfig())
			r.Put(c)
			if share := r.Share("default"); share != rules.MaxShare {
				t.Errorf("it leaves a share of %d for the namespace", share)
			}
		})
	}
}

// Services of one namespace share a budget. The share depends on what they want, in any order, and not on the
// share that they were compiled with; other namespaces keep theirs.
func TestShareOfNamespace(t *testing.T) {
	services := make([]*service.Service, 40)
	for i := range services {
		services[i] = product("crowded", 20, 20, 50)
		services[i].Name.Name = fmt.Sprint(i)
	}
	listed, wanted := 20+1+20+50, 20*21*51
	share := rules.MaxShare
	beyond := func(share int) int { return min(wanted, listed*share) - listed*rules.MinShare }
	for share > rules.MinShare && len(services)*beyond(share) > rules.MaxElements {
		share /= 2
	}
	if share == rules.MaxShare || share == rules.MinShare {
		t.Fatalf("the example has a share of %d", share)
	}
	r := rules.NewRuleset(testConfig())
	put := func(svc *service.Service) {
		r.Put(rules.Compile(svc, service.Node{}, noSlots, r.Share(svc.Name.Namespace)))
	}
	for range 2 {
		slices.Reverse(services)
		for _, svc := range services {
			put(svc)
		}
		if got := r.Share("crowded"); got != share {
			t.Errorf("the share is %d, want %d", got, share)
		}
	}
	if refused := r.Refused().Limit; refused == 0 {
		t.Error("no frontend is refused")
	}
	if got := r.Share("other"); got != rules.MaxShare {
		t.Errorf("the share of another namespace is %d", got)
	}
	for _, svc := range services {
		r.Remove(svc.Name)
	}
	if got := r.Share("crowded"); got != rules.MaxShare || r.Refused() != (rules.Refused{}) {
		t.Errorf("after all have gone the share is %d, refused are %+v", got, r.Refused())
	}
}

// However many Services there are, a namespace has a number of elements in proportion to what they list.
// Services that need no more than that take nothing from the others.
func TestShareHasAFloor(t *testing.T) {
	r := rules.NewRuleset(testConfig())
	fill := func(prefix string, services, ports, externalIPs, endpoints int) (listed int) {
		for i := range services {
			svc := product("default", ports, externalIPs, endpoints)
			svc.Name.Name = prefix + fmt.Sprint(i)
			svc.ClusterIPs = []netip.Addr{netip.AddrFrom4([4]byte{10, 96, prefix[0], byte(i)})}
			for j := range svc.ExternalIPs {
				svc.ExternalIPs[j] = netip.AddrFrom4([4]byte{198, byte(i), byte(j >> 8), byte(j)})
			}
			c := rules.Compile(svc, service.Node{}, noSlots, r.Share("default"))
			listed += c.Demand.Listed
			r.Put(c)
		}
		return listed
	}
	plain := fill("plain", 180, 1, 0, 3000)
	if r.Size() < rules.MaxElements || r.Share("default") != rules.MaxShare || r.Refused().Limit > 0 {
		t.Errorf("%d elements of plain Services leave a share of %d and refuse %d frontends", r.Size(),
			r.Share("default"), r.Refused().Limit)
	}
	fill("many", 180, 4, 500, 300)
	many := fill("many", 180, 4, 500, 300) // again with the final share, as the builder does
	if share := r.Share("default"); share != rules.MinShare {
		t.Errorf("the share is %d, want %d", share, rules.MinShare)
	}
	if n := r.Size(); n > plain+many*rules.MinShare+1000 {
		t.Errorf("%d elements for %d and %d listed parts", n, plain, many)
	}
}

// A reserved nodePort is not served on a loopback address either.
func TestReservedLoopback(t *testing.T) {
	f := service.Frontend{Addr: addrs("127.0.0.1")[0], Protocol: service.TCP, Port: 10250}
	svc := web()
	svc.Ports[0].NodePort = f.Port
	node := service.Node{LoopbackAddrs: addrs("127.0.0.1"),
		Reserved: map[service.Frontend]service.Reservation{f: {Use: "the kubelet"}}}
	want := []string{"127.0.0.1 . tcp . 10250: is not programmed, because the node needs it for the kubelet"}
	c := rules.Compile(svc, node, noSlots, rules.MaxShare)
	if diff := cmp.Diff(want, c.Problems); diff != "" || len(c.Loopbacks) != 0 || c.Refused.Reserved != 1 {
		t.Errorf("%d loopback frontends, %d refused; problems (-want +got):\n%s", len(c.Loopbacks),
			c.Refused.Reserved, diff)
	}
}

// Only the Service that it is reserved for has a reserved frontend.
func TestReserved(t *testing.T) {
	kubernetes := service.Name{Namespace: "default", Name: "kubernetes"}
	node := service.Node{Reserved: map[service.Frontend]service.Reservation{
		shared(): {Use: "the API server", By: kubernetes}}}
	for name, want := range map[service.Name]int{kubernetes: 1, {Namespace: "default", Name: "thief"}: 0,
		{Namespace: "other", Name: "kubernetes"}: 0} {
		svc := web()
		svc.Name, svc.ExternalIPs = name, svc.ClusterIPs
		c := rules.Compile(svc, node, noSlots, rules.MaxShare)
		r := rules.NewRuleset(testConfig())
		r.Put(c)
		if len(c.Entries) != want || r.Refused().Reserved != 1-want || len(c.Problems) != 1-want {
			t.Errorf("%s has %d frontends, %d are refused: %s", name, len(c.Entries), r.Refused().Reserved,
				strings.Join(c.Problems, "; "))
		}
	}
}
