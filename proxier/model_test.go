package proxier

import (
	"maps"
	"reflect"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// model is a kernel that accepts every Delta, holds what was applied, and keeps the last Delta. Its generation moves
// with every transaction, and a transaction can be bound to it.
type model struct {
	holds  rules.Programmed
	chains map[string]nftables.Chain // by family and name
	last   rules.Delta

	now, expected uint32 // the generation, and the one that CheckDrift expects
}

func newModel() *model {
	return &model{holds: rules.Programmed{}, chains: map[string]nftables.Chain{}, now: 1, expected: 1}
}

func (m *model) Diff(_ []service.Family, build func(rules.Slots) *rules.Ruleset) (*rules.Delta, uint32, error) {
	desired := build(m.holds.Slots())
	for f, t := range m.holds {
		for _, want := range desired.Chains(f) {
			if _, found := t.Chains[want.Name]; found {
				t.Chains[want.Name] = sameChain(m.chains[f.String()+want.Name], want)
			}
		}
	}
	return rules.Diff(desired, m.holds), m.now, nil
}

func sameChain(a, b nftables.Chain) bool {
	return reflect.DeepEqual(a.Hook, b.Hook) &&
		slices.EqualFunc(a.Rules, b.Rules, func(r, s nftables.Rule) bool { return reflect.DeepEqual(r, s) })
}

func (m *model) Apply(d *rules.Delta, generation uint32) error {
	if generation != 0 && generation != m.now {
		return &netlink.Error{Errno: unix.ERESTART, MsgIndex: -1}
	}
	m.now++
	m.expected++
	m.last = *d
	for _, f := range d.Tables {
		m.holds[f] = rules.NewTable()
	}
	for _, s := range d.Sets {
		m.holds[s.ID.Family].Sets[s.Name] = struct{}{}
	}
	for _, c := range d.Chains {
		m.holds[c.Family].Chains[c.Name] = false
		m.chains[c.Family.String()+c.Name] = c
	}
	for _, e := range d.Delete {
		delete(m.holds[e.Set.Family].Elements, e.ElementID)
	}
	for _, e := range d.Add {
		m.holds[e.Set.Family].Elements[e.ElementID] = e
	}
	return nil
}

func (m *model) DeleteStale(d *rules.Delta) (int, error) {
	m.last.StaleChains, m.last.StaleSets, m.last.ExpireClients = d.StaleChains, d.StaleSets, d.ExpireClients
	for _, c := range d.StaleChains {
		delete(m.holds[c.Family].Chains, c.Name)
		delete(m.chains, c.Family.String()+c.Name)
	}
	for _, s := range d.StaleSets {
		delete(m.holds[s.ID.Family].Sets, s.Name)
	}
	return 0, nil
}

func (m *model) CheckDrift(*rules.Ruleset) (kernel.Drift, error) {
	if m.now == m.expected {
		return kernel.Unchanged, nil
	}
	m.expected = m.now
	return kernel.Unknown, nil
}

// steal removes an element, as another process could.
func (m *model) steal(w *world) {
	var ids []nftables.ElementID
	for _, f := range service.Families() {
		if t := m.holds[f]; t != nil {
			ids = slices.AppendSeq(ids, maps.Keys(t.Elements))
		}
	}
	if len(ids) == 0 {
		return
	}
	slices.SortFunc(ids, nftables.ElementID.Compare) // so that a seed does the same again
	id := oneOf(w, ids...)
	delete(m.holds[id.Set.Family].Elements, id)
	m.now++
}
