package fakekernel

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

func TestMain(m *testing.M) { lab.Main(m) }

const ip, ip6 = service.IPv4, service.IPv6

var web = service.Frontend{Addr: netip.MustParseAddr("10.96.0.10"), Protocol: service.TCP, Port: 80}

const webShape = nftables.Class(1)

// base makes a table with a base chain that dispatches the frontend web to the chain a, which jumps to b.
func base() *rules.Delta {
	return &rules.Delta{
		Tables: []service.Family{ip},
		Sets: []nftables.Set{
			set(nftables.Services), set(nftables.Shapes), set(nftables.Endpoints), set(nftables.StickySlots),
			set(nftables.StickyBackends), set(nftables.StickyLocalSlots), set(nftables.Affinity),
			set(nftables.ClusterIPs), set(nftables.ServiceCIDRs), set(nftables.AllowedSources),
		},
		Chains: []nftables.Chain{
			chain("a", nftables.Jump{Chain: "b"}), chain("b"), chain("c"), baseChain(-100),
		},
		Add: []nftables.Element{
			nftables.ServiceElement(web, webShape, "default/web"),
			nftables.ShapeElement(ip, webShape, "a"),
			nftables.AddrElement(nftables.ClusterIPs, web.Addr, 1),
			nftables.PrefixElement(nftables.ServiceCIDRs, netip.MustParsePrefix("10.0.0.0/8")),
			nftables.SourceElement(web, netip.MustParsePrefix("10.0.0.0/8")),
		},
	}
}

func set(k nftables.SetKind) nftables.Set {
	return nftables.Set{ID: nftables.SetID{Family: ip, Kind: k}, Name: k.String()}
}

// chain returns a chain with one rule, if it gets statements.
func chain(name string, rule ...nftables.Statement) nftables.Chain {
	c := nftables.Chain{Family: ip, Name: name}
	if len(rule) > 0 {
		c.Rules = []nftables.Rule{rule}
	}
	return c
}

func baseChain(priority int) nftables.Chain {
	c := chain("nat-prerouting", nftables.SetPriority{Key: nftables.FrontendKey(), Map: "services"},
		nftables.Dispatch{Key: []nftables.Field{nftables.Priority}, Map: "shapes"})
	c.Hook = &nftables.Hook{Name: "prerouting", Priority: priority}
	return c
}

func add(elements ...nftables.Element) rules.Delta { return rules.Delta{Add: elements} }

func del(elements ...nftables.Element) rules.Delta { return rules.Delta{Delete: elements} }

func write(chains ...nftables.Chain) rules.Delta { return rules.Delta{Chains: chains} }

// refusalCase is a Delta upon base, and the error number that it gets.
type refusalCase struct {
	name   string
	delta  rules.Delta
	want   unix.Errno // 0: none
	varies bool       // kernels refuse with different error numbers
}

func refusalCases() []refusalCase {
	long := strings.Repeat("x", maxName+1)
	dnat := nftables.DNAT{Key: nftables.SlotKey(1), Map: "endpoints"}
	noSlots := nftables.DNAT{Key: append(nftables.FrontendKey(), nftables.Random(0)), Map: "endpoints"}
	known := nftables.InSet{Key: []nftables.Field{nftables.DstAddr}, Set: "cluster-ips"}
	absent := nftables.InSet{Key: []nftables.Field{nftables.DstAddr}, Set: "hairpin"}
	vmap := nftables.Dispatch{Key: []nftables.Field{nftables.DstAddr}, Map: "cluster-ips"}
	services6, longSet := set(nftables.Services), set(nftables.Affinity)
	services6.ID.Family, longSet.Name = ip6, long
	sets := func(s nftables.Set) rules.Delta { return rules.Delta{Sets: []nftables.Set{s}} }
	return []refusalCase{
		{"chains refer to each other", write(chain("b", nftables.Jump{Chain: "d"}), chain("d", dnat),
			chain("a", known, nftables.Drop{})), 0, false},
		{"a set again", sets(set(nftables.Services)), 0, false},
		{"reset", rules.Delta{Reset: []rules.BrokenTable{{Family: ip}}, Tables: []service.Family{ip}},
			0, false},
		{"reset of an absent table", rules.Delta{Reset: []rules.BrokenTable{{Family: ip6}}},
			unix.ENOENT, false},
		{"set in an absent table", sets(services6), unix.ENOENT, false},
		{"long name of a set", sets(longSet), unix.ERANGE, false},
		{"chain in an absent table", write(nftables.Chain{Family: ip6, Name: "a"}), unix.ENOENT, false},
		{"long name of a chain", write(chain(long)), unix.ERANGE, false},
		{"another hook", write(baseChain(-90)), unix.EOPNOTSUPP, true},
		{"rule with an absent set", write(chain("a", absent)), unix.ENOENT, false},
		{"rule with an absent chain", write(chain("a", nftables.Jump{Chain: "d"})), unix.ENOENT, false},
		{"rule with a base chain", write(chain("a", nftables.Jump{Chain: "nat-prerouting"})),
			unix.EOPNOTSUPP, false},
		{"verdict of a set", write(chain("a", vmap)), unix.EINVAL, false},
		{"one of no slots", write(chain("a", noSlots)), unix.ERANGE, false},
	}
}

// affinityCases are about the statements that work on the priority.
func affinityCases() []refusalCase {
	slot := nftables.SetPriority{Key: nftables.SlotKey(1), Map: "sticky-slots"}
	number := []nftables.Field{nftables.Priority}
	affinity := nftables.Affinity.String()
	remember := nftables.Remember{Map: affinity, Timeout: time.Second}
	dnat := nftables.DNAT{Key: nftables.BackendKey(), Map: "sticky-backends"}
	return []refusalCase{
		{"a known client", write(chain("a", nftables.Recall{Map: affinity}, remember, dnat)), 0, false},
		{"a new client", write(chain("a", nftables.Forget{Map: affinity}, slot, remember, dnat)), 0, false},
		{"end of the priority", write(chain("a", nftables.ClearPriority{})), 0, false},
		{"recall from an absent map", write(chain("a", nftables.Recall{Map: "affinity-x"})), unix.ENOENT, false},
		{"remember in an absent map", write(chain("a", nftables.Remember{Map: "affinity-x", Timeout: time.Second})),
			unix.ENOENT, false},
		{"forget in an absent map", write(chain("a", nftables.Forget{Map: "affinity-x"})), unix.ENOENT, false},
		{"slot in an absent map", write(chain("a", nftables.SetPriority{Key: number, Map: "x"})),
			unix.ENOENT, false},
		{"number of a verdict map", write(chain("a", nftables.SetPriority{Key: number, Map: "shapes"})),
			unix.EINVAL, false},
		{"verdict of a map of numbers", write(chain("a", nftables.Dispatch{Key: nftables.FrontendKey(),
			Map: "services"})), unix.EINVAL, false},
		{"number of a set", write(chain("a", nftables.SetPriority{Key: []nftables.Field{nftables.DstAddr},
			Map: "cluster-ips"})), unix.EINVAL, false},
		{"remember in a map without timeouts", write(chain("a", nftables.Remember{Map: "sticky-slots",
			Timeout: time.Second})), unix.EOPNOTSUPP, false},
		{"map in use", rules.Delta{StaleSets: []nftables.Set{set(nftables.Shapes)}}, unix.EBUSY, false},
	}
}

func elementCases() []refusalCase {
	next := web
	next.Port++
	cidr := func(prefix string) nftables.Element {
		return nftables.PrefixElement(nftables.ServiceCIDRs, netip.MustParsePrefix(prefix))
	}
	source := func(f service.Frontend, prefix string) nftables.Element {
		return nftables.SourceElement(f, netip.MustParsePrefix(prefix))
	}
	leadsTo := func(n nftables.Class, chain string) nftables.Element {
		return nftables.ShapeElement(ip, n, chain)
	}
	clusterIP := nftables.AddrElement(nftables.ClusterIPs, web.Addr, 1)
	otherIP := nftables.AddrElement(nftables.ClusterIPs, web.Addr.Next(), 1)
	hairpin := nftables.AddrElement(nftables.Hairpin, web.Addr, 2)
	slot := nftables.SlotElement(nftables.Endpoints, web, 0, netip.MustParseAddrPort("10.1.0.1:80"))
	replace := add(clusterIP)
	replace.Delete = replace.Add
	return []refusalCase{
		{"element", add(slot, otherIP), 0, false},
		{"element with a chain", add(leadsTo(2, "b")), 0, false},
		{"prefixes next to each other", add(cidr("11.0.0.0/8"), cidr("9.0.0.0/8")), 0, false},
		{"sources of two frontends", add(source(next, "8.0.0.0/6")), 0, false},
		{"an element is replaced", replace, 0, false},
		{"element in an absent table", add(cidr("fd00::/64")), unix.ENOENT, false},
		{"element in an absent set", add(hairpin), unix.ENOENT, false},
		{"element with an absent chain", add(leadsTo(2, "d")), unix.ENOENT, false},
		{"element with a base chain", add(leadsTo(2, "nat-prerouting")), unix.EOPNOTSUPP, false},
		{"element again", add(clusterIP), unix.EEXIST, false},
		{"element again, with another chain", add(leadsTo(webShape, "b")), unix.EEXIST, true},
		{"element again, with other data", add(nftables.ServiceElement(web, 2, "default/web")), unix.EEXIST, true},
		{"wider prefix", add(cidr("8.0.0.0/6")), unix.EEXIST, false},
		{"narrower prefix", add(cidr("10.1.0.0/16")), unix.EEXIST, false},
		{"narrower source", add(source(web, "10.1.0.0/16")), unix.EEXIST, false},
		{"delete", del(clusterIP), 0, false},
		{"delete an absent element", del(otherIP), unix.ENOENT, false},
		{"delete in an absent set", del(hairpin), unix.ENOENT, false},
	}
}

func staleCases() []refusalCase {
	chains := func(names ...string) (d rules.Delta) {
		for _, name := range names {
			d.StaleChains = append(d.StaleChains, chain(name))
		}
		return d
	}
	sets := func(k nftables.SetKind) rules.Delta { return rules.Delta{StaleSets: []nftables.Set{set(k)}} }
	return []refusalCase{
		{"stale chain", chains("c"), 0, false},
		{"stale set", sets(nftables.Affinity), 0, false},
		{"stale set with elements", sets(nftables.ClusterIPs), 0, false},
		{"absent chain", chains("d"), unix.ENOENT, false},
		{"absent set", sets(nftables.Hairpin), unix.ENOENT, false},
		{"chain in use by a rule", chains("b"), unix.EBUSY, false},
		{"chain in use by an element", chains("a"), unix.EBUSY, false},
		{"set in use", sets(nftables.Services), unix.EBUSY, false},
		{"one of two chains is in use", chains("c", "b"), unix.EBUSY, false},
	}
}

// realKernel returns a Conn to the kernel with the tables of base and no others.
func realKernel(t *testing.T) *kernel.Conn {
	t.Helper()
	c, err := kernel.Dial(kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := c.Cleanup(service.Families()); err != nil {
			t.Error(err)
		}
		c.Close()
	})
	if err := c.Apply(base()); err != nil {
		t.Fatal(err)
	}
	return c
}

func fake(t *testing.T) *Kernel {
	t.Helper()
	k := New()
	if err := k.Apply(base()); err != nil {
		t.Fatal(err)
	}
	return k
}

// tables are what both kernels do with a Delta.
type tables interface {
	Apply(d *rules.Delta) error
	DeleteStale(d *rules.Delta) error
}

func run(k tables, d *rules.Delta) error {
	if len(d.StaleChains)+len(d.StaleSets) > 0 {
		return k.DeleteStale(d)
	}
	return k.Apply(d)
}

// errnoOf returns the error number of a refusal, 0 for no error.
func errnoOf(t *testing.T, err error) unix.Errno {
	t.Helper()
	var refused *netlink.Error
	if err != nil && !errors.As(err, &refused) {
		t.Fatalf("error %v is not a refusal", err)
	}
	if refused == nil {
		return 0
	}
	return refused.Errno
}

// The fake and the real kernel refuse the same, and a refused Delta changes nothing.
func TestRefusals(t *testing.T) {
	for _, tests := range [][]refusalCase{refusalCases(), affinityCases(), elementCases(), staleCases()} {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				k := fake(t)
				before := k.Tables()
				err := run(k, &tt.delta)
				if got := errnoOf(t, err); got != tt.want {
					t.Errorf("the fake returns %v, want %v", err, tt.want)
				}
				if diff := Difference(before, k.Tables()); err != nil && diff != "" {
					t.Errorf("a refused Delta changes the tables:\n%s", diff)
				}
				err = run(realKernel(t), &tt.delta)
				if got := errnoOf(t, err); got != tt.want && (!tt.varies || got == 0) {
					t.Errorf("the kernel returns %v, want %v", err, tt.want)
				}
			})
		}
	}
}

// The fake refuses some Deltas that the kernel takes: see refusal.go.
func TestStricterThanTheKernel(t *testing.T) {
	otherLayout := set(nftables.ClusterIPs)
	otherLayout.Name = "services"
	short := nftables.InSet{Key: nftables.FrontendKey(), Set: "cluster-ips"}
	otherData := nftables.DNAT{Key: nftables.SlotKey(1), Map: "sticky-slots"}
	wrongNumber := nftables.SetPriority{Key: nftables.SlotKey(1), Map: "endpoints"}
	wrongClient := nftables.Recall{Map: "services"}
	brief := nftables.Remember{Map: "affinity", Timeout: time.Millisecond}
	tests := []refusalCase{
		{"table that exists", rules.Delta{Tables: []service.Family{ip}}, unix.EEXIST, false},
		{"chain twice", write(chain("d"), chain("d")), unix.EEXIST, false},
		{"set of another layout", rules.Delta{Sets: []nftables.Set{otherLayout}}, unix.EEXIST, false},
		{"deletion of an element with other data",
			del(nftables.ServiceElement(web, 2, "default/web")), unix.ENOENT, false},
		{"key of another length", write(chain("a", short)), unix.EINVAL, false},
		{"other data", write(chain("a", otherData)), unix.EINVAL, false},
		{"number of a map of addresses", write(chain("a", wrongNumber)), unix.EINVAL, false},
		{"client in a map of other keys", write(chain("a", wrongClient)), unix.EINVAL, false},
		{"forget in a map without timeouts", write(chain("a", nftables.Forget{Map: "sticky-slots"})),
			unix.EOPNOTSUPP, false},
		{"wider source", add(nftables.SourceElement(web, netip.MustParsePrefix("8.0.0.0/6"))),
			unix.EEXIST, false},
		{"short timeout", write(chain("a", brief)), unix.ERANGE, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := run(fake(t), &tt.delta); errnoOf(t, err) != tt.want {
				t.Errorf("the fake returns %v, want %v", err, tt.want)
			}
		})
	}
}
