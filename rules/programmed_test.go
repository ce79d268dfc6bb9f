package rules_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/internal/fakekernel"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Slots are read back from the elements, also from those of another process.
func TestProgrammedSlots(t *testing.T) {
	f := service.Frontend{Addr: web().ClusterIPs[0], Protocol: service.TCP, Port: 80}
	f6 := service.Frontend{Addr: addrs("fd00:96::10")[0], Protocol: service.UDP, Port: 53}
	p := rules.Programmed{service.IPv4: rules.NewTableState(), service.IPv6: rules.NewTableState()}
	for _, e := range []nftables.Element{
		nftables.SlotElement(nftables.Endpoints, f, 3, backendList(ep1)[0]),
		nftables.SlotElement(nftables.Endpoints, f, 1, backendList(ep2)[0]),
		nftables.SlotElement(nftables.Endpoints, f, nftables.MaxSlots, backendList(ep3)[0]),
		nftables.SlotElement(nftables.LocalEndpoints, f, 0, backendList(ep4)[0]),
		nftables.SlotElement(nftables.Endpoints, f6, nftables.MaxSlots-1, backendList("[fd00::1]:53")[0]),
		nftables.FrontendElement(nftables.Services, f, "cluster-2", ""),
	} {
		p[e.Set.Family].Elements[e.ElementID] = e
	}
	slots := p.Slots()
	backends, locals := slots(f)
	want := [][]string{backendStrings(backendList("- " + ep2 + " - " + ep1)),
		backendStrings(backendList(ep4))}
	if diff := cmp.Diff(want, [][]string{backendStrings(backends), backendStrings(locals)}); diff != "" {
		t.Errorf("slots (-want +got):\n%s", diff)
	}
	if backends, locals := slots(f6); len(backends) != nftables.MaxSlots ||
		backends[nftables.MaxSlots-1] != backendList("[fd00::1]:53")[0] || locals != nil {
		t.Errorf("%d IPv6 slots with %v, %d locals", len(backends), backends[len(backends)-1], len(locals))
	}
	unknown := service.Frontend{Addr: f.Addr, Protocol: service.TCP, Port: 81}
	if backends, locals := slots(unknown); backends != nil || locals != nil {
		t.Errorf("a frontend that is not known has %v and %v", backends, locals)
	}
}

// A process that starts in an unchanged cluster writes nothing, in any order of slots.
func TestRestartWritesNothing(t *testing.T) {
	for seed := range uint64(100) {
		g := newGenerator(seed)
		config, node := g.config(), g.node()
		before := rules.NewRuleset(config)
		services := map[int]*service.Service{}
		for range 20 { // slots depend on this history
			i := g.IntN(5)
			services[i] = g.change(i, services[i])
			before.Put(rules.Compile(services[i], node, before.Slots))
		}
		k := fakekernel.New()
		apply(t, k, rules.Diff(before, rules.Programmed{}))
		kernel := k.Tables()
		after := rules.NewRuleset(config)
		slots := kernel.Programmed(nil).Slots()
		for i := range 5 {
			if services[i] != nil {
				after.Put(rules.Compile(services[i], node, slots))
			}
		}
		// Chains that were of use once may go.
		if d := rules.Diff(after, kernel.Programmed(after)); d.Size() > 0 {
			t.Fatalf("seed %d: a restart writes:\n%s", seed, deltaText(t, d))
		}
	}
}
