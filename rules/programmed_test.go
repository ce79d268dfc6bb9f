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
		nftables.ServiceElement(f, nftables.NewClass(0x4c00, 2), ""),
	} {
		p[e.Set.Family].Elements[e.ElementID] = e
	}
	slots := p.Slots()
	want := rules.Held{Backends: backendList("- " + ep2 + " - " + ep1), Locals: backendList(ep4)}
	checkHeld(t, "plain", want, slots(f))
	if held := slots(f6); len(held.Backends) != nftables.MaxSlots ||
		held.Backends[nftables.MaxSlots-1] != backendList("[fd00::1]:53")[0] || held.Locals != nil {
		t.Errorf("%d IPv6 slots with %v, %d locals",
			len(held.Backends), held.Backends[len(held.Backends)-1], len(held.Locals))
	}
	unknown := service.Frontend{Addr: f.Addr, Protocol: service.TCP, Port: 81}
	checkHeld(t, "a frontend that is not known", rules.Held{}, slots(unknown))
}

func checkHeld(t *testing.T, what string, want, got rules.Held) {
	t.Helper()
	sameBackend := cmp.Comparer(func(a, b service.Backend) bool { return a == b })
	if diff := cmp.Diff(want, got, sameBackend); diff != "" {
		t.Errorf("%s: slots and numbers (-want +got):\n%s", what, diff)
	}
}

// With session affinity, slots have numbers, and numbers have backends. A slot whose number has no backend is
// a hole, and a backend whose number has no slot is not held. In turn, the number of a backend is that of its
// slot.
func TestProgrammedNumbers(t *testing.T) {
	f := service.Frontend{Addr: web().ClusterIPs[0], Protocol: service.TCP, Port: 80}
	other := service.Frontend{Addr: f.Addr, Protocol: service.TCP, Port: 81}
	turns := service.Frontend{Addr: f.Addr, Protocol: service.TCP, Port: 82}
	p := rules.Programmed{service.IPv4: rules.NewTableState()}
	for _, e := range []nftables.Element{
		nftables.StickySlotElement(nftables.StickySlots, f, 2, 7),
		nftables.StickySlotElement(nftables.StickySlots, f, 0, 8),
		nftables.StickySlotElement(nftables.StickySlots, f, 3, 9), // no backend has the number
		nftables.StickySlotElement(nftables.StickySlots, f, nftables.MaxSlots, 7),
		nftables.StickyBackendElement(nftables.StickyBackends, f, 7, backendList(ep1)[0]),
		nftables.StickyBackendElement(nftables.StickyBackends, f, 8, backendList(ep2)[0]),
		nftables.StickyBackendElement(nftables.StickyBackends, f, 6, backendList(ep4)[0]), // no slot has the number
		nftables.StickyBackendElement(nftables.StickyBackends, other, 0x0a010004, backendList(ep4)[0]),
		nftables.StickyBackendElement(nftables.StickyLocalBackends, f, 9, backendList(ep4)[0]),
		nftables.StickySlotElement(nftables.StickyLocalSlots, f, 1, 5),
		nftables.StickyBackendElement(nftables.StickyLocalBackends, f, 5, backendList(ep3)[0]),
		nftables.StickyBackendElement(nftables.StickyBackends, turns, 1, backendList(ep4)[0]),
		nftables.StickyBackendElement(nftables.StickyBackends, turns, 3, backendList(ep3)[0]),
		nftables.StickyBackendElement(nftables.StickyLocalBackends, turns, 1, backendList(ep3)[0]),
	} {
		p[service.IPv4].Elements[e.ElementID] = e
	}
	checkHeld(t, "in turn", rules.Held{
		Backends: backendList(ep4 + " - " + ep3), Locals: backendList(ep3)}, p.Slots()(turns))
	checkHeld(t, "with session affinity", rules.Held{
		Backends: backendList(ep2 + " - " + ep1 + " -"), Numbers: []nftables.Class{8, 0, 7, 9},
		Locals: backendList("- " + ep3), LocalNumbers: []nftables.Class{0, 5},
	}, p.Slots()(f))
	checkHeld(t, "a frontend without slots", rules.Held{}, p.Slots()(other))
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
			before.Put(rules.Compile(services[i], node, before.Slots, rules.MaxShare))
		}
		k := fakekernel.New()
		apply(t, k, rules.Diff(before, rules.Programmed{}))
		kernel := k.Tables()
		after := rules.NewRuleset(config)
		slots := kernel.Programmed(nil).Slots()
		for i := range 5 {
			if services[i] != nil {
				after.Put(rules.Compile(services[i], node, slots, rules.MaxShare))
			}
		}
		// Chains that were of use once may go.
		if d := rules.Diff(after, kernel.Programmed(after)); d.Size() > 0 {
			t.Fatalf("seed %d: a restart writes:\n%s", seed, deltaText(t, d))
		}
	}
}
