package kernel

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// feature is a part of a ruleset that the kernel can check alone, together with the parts that it needs: a
// table, a set, a base chain, or a rule in a base chain.
type feature struct {
	family service.Family
	set    *nftables.Set
	// optional features are those that nftproxy can do without.
	optional bool
	hook     *nftables.Hook // of a base chain, also for a rule
	rule     nftables.Rule
	sets     map[string]nftables.Set // the sets that the rule can use, by name
}

// allFeatures returns the features of every ruleset, each after those that it needs.
func allFeatures() []feature {
	var all []feature
	for _, f := range service.Families() {
		all = append(all, features(f)...)
	}
	return all
}

// features returns the features of a family: the table with nothing in it, sets, base chains and rules.
func features(f service.Family) []feature {
	sets, specimens := rules.Specimens(f)
	out := []feature{{family: f}}
	byName := map[string]nftables.Set{}
	for _, s := range sets {
		byName[s.Name] = s
		out = append(out, feature{family: f, set: &s})
	}
	counted := byName[nftables.Services.String()]
	counted.Counter = true
	out = append(out, feature{family: f, set: &counted, optional: true})
	hooks := map[nftables.Hook]bool{}
	for _, s := range specimens {
		if !hooks[s.Hook] {
			hooks[s.Hook] = true
			out = append(out, feature{family: f, hook: &s.Hook})
		}
		out = append(out, feature{family: f, hook: &s.Hook, rule: s.Rule, sets: byName})
	}
	return out
}

// needs reports whether the feature needs another one, so that a kernel without the other one refuses both.
// Of the rule of the other feature only the last statement counts.
func (f feature) needs(other feature) bool {
	switch {
	case f.family != other.family:
		return false
	case other.rule != nil:
		return f.hook != nil && f.hook.Name == other.hook.Name && slices.ContainsFunc(f.rule,
			func(s nftables.Statement) bool { return f.text(s) == f.text(other.rule[len(other.rule)-1]) })
	case other.hook != nil:
		return f.hook != nil && f.hook.Name == other.hook.Name
	case other.optional:
		return false
	case other.set != nil && f.set != nil:
		return f.optional && f.set.ID == other.set.ID
	case other.set != nil:
		return slices.ContainsFunc(f.rule, func(s nftables.Statement) bool {
			set, _ := nftables.Uses(s)
			return set == other.set.Name
		})
	}
	return true // the table
}

func (f feature) text(s nftables.Statement) string { return nftables.Rule{s}.Text(f.family) }

// String names the feature in nft's words; a rule by its last statement, and the table by the empty string.
func (f feature) String() string {
	switch {
	case f.rule != nil:
		return fmt.Sprintf("%q in %s", f.text(f.rule[len(f.rule)-1]), f.hook.Name)
	case f.hook != nil:
		return "chain of type nat in " + f.hook.Name
	case f.optional:
		return "counter in " + f.set.Keyword() + " " + f.set.Name
	case f.set != nil:
		return f.set.Keyword() + " " + f.set.Name
	}
	return ""
}

// requires names the kernel options, modules or version that provide the feature; of a rule, its last
// statement.
func (f feature) requires() string {
	switch {
	case f.rule != nil:
		return nftables.Requires(f.rule[len(f.rule)-1], f.family)
	case f.hook != nil:
		return f.chain().Requires()
	case f.set != nil:
		return f.set.Requires()
	}
	return "CONFIG_NF_TABLES, CONFIG_NF_TABLES_" + f.family.Option() + " (module nf_tables)"
}

// chain returns the base chain of the feature's hook.
func (f feature) chain() nftables.Chain {
	name := fmt.Sprintf("%s%d", f.hook.Name, f.hook.Priority)
	return nftables.Chain{Family: f.family, Name: name, Hook: f.hook}
}

// append appends the messages that create the feature with the parts that it needs, except the parts that the
// batch creates already.
func (f feature) append(b *netlink.Batch, created map[string]bool) error {
	missing := func(kind, name string) bool {
		key := fmt.Sprint(f.family, " ", kind, " ", name)
		was := created[key]
		created[key] = true
		return !was
	}
	addSet := func(s nftables.Set) {
		if missing("set", s.Name) {
			appendSet(b, probeTable, s, uint32(b.Len()))
		}
	}
	addChain := func(c nftables.Chain) {
		if missing("chain", c.Name) {
			appendChain(b, probeTable, c)
		}
	}
	if missing("table", probeTable) {
		appendTable(b, probeTable, f.family, unix.NFT_MSG_NEWTABLE, 0)
	}
	if f.set != nil && f.optional {
		s := *f.set
		s.Name += "-counted" // next to the set itself, which the batch may create as well
		addSet(s)
	} else if f.set != nil {
		addSet(*f.set)
	}
	if f.hook == nil {
		return nil
	}
	addChain(f.chain())
	if f.rule == nil {
		return nil
	}
	for _, s := range f.rule {
		set, chain := nftables.Uses(s)
		if s, ok := f.sets[set]; ok {
			addSet(s)
		}
		if chain != "" {
			addChain(nftables.Chain{Family: f.family, Name: chain})
		}
	}
	return appendRule(b, probeTable, f.chain(), f.rule)
}
