package fakekernel

import (
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// apply makes the changes of a Delta, in the order in which kernel.Conn sends them.
func (ts Tables) apply(d *rules.Delta) error {
	for _, broken := range d.Reset {
		if ts[broken.Family] == nil {
			return refuse(unix.ENOENT, "delete table %s", broken.Family)
		}
		delete(ts, broken.Family)
	}
	for _, f := range d.Tables {
		if ts[f] != nil {
			return refuse(unix.EEXIST, "add table %s", f)
		}
		ts[f] = NewTable()
	}
	for _, f := range d.Replaced() {
		if err := ts.flush(f); err != nil {
			return err
		}
	}
	if err := ts.deleteSets(d.Replace); err != nil {
		return err
	}
	for _, s := range slices.Concat(d.Replace, d.Sets) {
		if err := ts.addSet(s); err != nil {
			return err
		}
	}
	if err := ts.addChains(d.Chains); err != nil {
		return err
	}
	for _, e := range d.Delete {
		if err := ts.deleteElement(e); err != nil {
			return err
		}
	}
	for _, e := range d.Add {
		if err := ts.addElement(e); err != nil {
			return err
		}
	}
	return nil
}

func (ts Tables) addSet(s nftables.Set) error {
	if err := ts.refuseSet(s); err != nil {
		return err
	}
	ts[s.ID.Family].Sets[s.Name] = s
	return nil
}

// addChains creates and flushes all chains first, so that rules may refer to each of them.
func (ts Tables) addChains(chains []nftables.Chain) error {
	added := map[string]bool{}
	for _, c := range chains {
		if id := c.Family.String() + " " + c.Name; added[id] {
			return refuse(unix.EEXIST, "add chain %s, which the transaction adds already", id)
		} else {
			added[id] = true
		}
		if err := ts.refuseChain(c); err != nil {
			return err
		}
		ts[c.Family].Chains[c.Name] = nftables.Chain{Family: c.Family, Name: c.Name, Hook: c.Hook}
	}
	for _, c := range chains {
		for _, rule := range c.Rules {
			if err := ts[c.Family].refuseRule(c, rule); err != nil {
				return err
			}
		}
		ts[c.Family].Chains[c.Name] = c
	}
	return nil
}

func (ts Tables) deleteElement(e nftables.Element) error {
	t := ts[e.Set.Family]
	if t == nil || t.Elements[e.ElementID] != e {
		return refuse(unix.ENOENT, "delete element %s { %s }", e.Set.Kind, e)
	}
	delete(t.Elements, e.ElementID)
	return nil
}

func (ts Tables) addElement(e nftables.Element) error {
	if err := ts.refuseElement(e); err != nil {
		return err
	}
	ts[e.Set.Family].Elements[e.ElementID] = e
	return nil
}

// deleteStale deletes chains and sets. Stale chains may refer to each other, so all lose their rules first.
func (ts Tables) deleteStale(d *rules.Delta) error {
	for _, c := range d.StaleChains {
		t := ts[c.Family]
		if t == nil || !has(t.Chains, c.Name) {
			return refuse(unix.ENOENT, "flush chain %s %s", c.Family, c.Name)
		}
		empty := t.Chains[c.Name]
		empty.Rules = nil
		t.Chains[c.Name] = empty
	}
	for _, c := range d.StaleChains {
		t := ts[c.Family]
		if !has(t.Chains, c.Name) {
			return refuse(unix.ENOENT, "delete chain %s %s", c.Family, c.Name)
		}
		if user := t.ChainUser(c.Name); user != "" {
			return refuse(unix.EBUSY, "delete chain %s %s, which %s uses", c.Family, c.Name, user)
		}
		delete(t.Chains, c.Name)
	}
	return ts.deleteSets(d.StaleSets)
}

// flush deletes all rules of a table.
func (ts Tables) flush(f service.Family) error {
	t := ts[f]
	if t == nil {
		return refuse(unix.ENOENT, "flush table %s", f)
	}
	for name, c := range t.Chains {
		c.Rules = nil
		t.Chains[name] = c
	}
	return nil
}

// deleteSets deletes sets with their elements.
func (ts Tables) deleteSets(sets []nftables.Set) error {
	for _, s := range sets {
		t := ts[s.ID.Family]
		if t == nil || !has(t.Sets, s.Name) {
			return refuse(unix.ENOENT, "delete set %s %s", s.ID.Family, s.Name)
		}
		if user := t.setUser(s.Name); user != "" {
			return refuse(unix.EBUSY, "delete set %s %s, which %s uses", s.ID.Family, s.Name, user)
		}
		delete(t.Sets, s.Name)
		maps.DeleteFunc(t.Elements, func(id nftables.ElementID, _ nftables.Element) bool {
			return id.Set.Kind.String() == s.Name
		})
	}
	return nil
}

// ChainUser names an element, or a chain with a rule, that leads to the chain. It returns "" if there is
// none.
func (t *Table) ChainUser(name string) string {
	for _, e := range t.Elements {
		if e.Set.Schema().Verdict && e.Chain == name {
			return "element " + e.String()
		}
	}
	return t.ruleUser(func(_, chain string) bool { return chain == name })
}

func (t *Table) setUser(name string) string {
	return t.ruleUser(func(set, _ string) bool { return set == name })
}

// ruleUser names a chain with a statement that uses a set or a chain.
func (t *Table) ruleUser(used func(set, chain string) bool) string {
	for _, c := range t.Chains {
		for _, rule := range c.Rules {
			for _, s := range rule {
				if used(nftables.Uses(s)) {
					return "chain " + c.Name
				}
			}
		}
	}
	return ""
}

func has[V any](in map[string]V, name string) bool { _, ok := in[name]; return ok }
