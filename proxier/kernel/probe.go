package kernel

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// probeTable is never committed.
const probeTable = "nftproxy-probe"

// Missing is a feature that rulesets need and the kernel lacks.
type Missing struct {
	Family  service.Family
	Feature string // in nft's words; empty: the family as a whole
	Needs   string // kernel options, modules or the version that bring it
	Err     error  // the kernel's refusal
}

// WholeFamily reports whether the kernel has no tables of the family at all, as a kernel without IPv6.
func (m Missing) WholeFamily() bool { return m.Feature == "" }

func (m Missing) String() string {
	feature := m.Feature
	if m.WholeFamily() {
		feature = "tables"
	}
	return fmt.Sprintf("%s %s: needs %s (%v)", m.Family, feature, m.Needs, m.Err)
}

// Probe returns the features that rulesets need and the kernel lacks. It asks the kernel to check a specimen of every
// set, chain and rule that can be programmed, and commits nothing: first all in one batch and, if the kernel refuses
// that, in ever smaller parts. Each check takes the kernel a while (15 ms on 6.18), because it waits for readers of
// what it drops. The kernel may load modules for it. An error, such as netlink.ErrPermission, says that nothing was
// found out.
func Probe() (missing []Missing, err error) {
	c, err := netlink.Dial()
	if err != nil {
		return nil, fmt.Errorf("probe nftables: %w", err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	p := prober{conn: c}
	var all []feature
	for _, f := range service.Families() {
		all = append(all, features(f)...)
	}
	if refused, err := p.check(all); refused == nil {
		return nil, err
	}
	for _, f := range service.Families() {
		if err := p.probe(f); err != nil {
			return nil, fmt.Errorf("probe nftables: %w", err)
		}
	}
	return p.missing, nil
}

// feature is a part of a ruleset that the kernel can be asked about alone, with the parts that it stands on.
type feature struct {
	family service.Family
	set    *nftables.Set
	hook   *nftables.Hook
	rule   nftables.Rule
	sets   map[string]nftables.Set // by name, for the rule
}

// features returns the parts of every ruleset of the family: the table with nothing in it, sets, base chains and rules.
func features(f service.Family) []feature {
	sets, specimens := rules.Specimens(f)
	out := []feature{{family: f}}
	byName := map[string]nftables.Set{}
	for _, s := range sets {
		byName[s.Name] = s
		out = append(out, feature{family: f, set: &s})
	}
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

// chain is the base chain of the feature's hook.
func (f *feature) chain() nftables.Chain {
	return nftables.Chain{Family: f.family, Name: fmt.Sprintf("%s%d", f.hook.Name, f.hook.Priority), Hook: f.hook}
}

func (f *feature) String() string {
	switch {
	case f.rule != nil:
		return fmt.Sprintf("%q in %s", f.rule[len(f.rule)-1:].Text(f.family), f.hook.Name)
	case f.hook != nil:
		return "chain of type nat in " + f.hook.Name
	case f.set != nil:
		return f.set.Keyword() + " " + f.set.Name
	}
	return ""
}

func (f *feature) needs() string {
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

// prober asks the kernel about features.
type prober struct {
	conn    *netlink.Conn
	missing []Missing
}

// probe finds what the kernel lacks of a family.
func (p *prober) probe(f service.Family) error {
	all := features(f)
	missing := len(p.missing)
	if err := p.bisect(all[:1]); err != nil || len(p.missing) > missing {
		return err // without a table there is nothing to put into it
	}
	return p.bisect(all[1:])
}

// bisect adds the features that the kernel refuses to those that are missing.
func (p *prober) bisect(features []feature) error {
	refused, err := p.check(features)
	if err != nil || refused == nil {
		return err
	}
	if len(features) == 1 {
		return p.narrow(features[0], refused)
	}
	half := len(features) / 2
	return errors.Join(p.bisect(features[:half]), p.bisect(features[half:]))
}

// narrow adds a refused feature; of a rule, the first statement that the kernel refuses.
func (p *prober) narrow(f feature, refused *netlink.Error) error {
	for n := 1; n < len(f.rule); n++ {
		part := f
		part.rule = f.rule[:n]
		r, err := p.check([]feature{part})
		if err != nil {
			return err
		}
		if r != nil {
			f, refused = part, r
			break
		}
	}
	m := Missing{Family: f.family, Feature: f.String(), Needs: f.needs(), Err: refused}
	for _, known := range p.missing {
		if known.Family == m.Family && known.Feature == m.Feature {
			return nil
		}
	}
	p.missing = append(p.missing, m)
	return nil
}

// check asks the kernel about features, and keeps the refusal of a feature apart from errors of another kind.
func (p *prober) check(features []feature) (refused *netlink.Error, err error) {
	var b netlink.Batch
	for i := range features {
		if err := features[i].append(&b); err != nil {
			return nil, err
		}
	}
	err = p.conn.Check(&b)
	if errors.As(err, &refused) && !errors.Is(err, netlink.ErrPermission) && refused.Errno != unix.ENOMEM {
		return refused, nil
	}
	return nil, err
}

// append writes the feature with the parts that it stands on.
func (f *feature) append(b *netlink.Batch) error {
	appendTable(b, probeTable, f.family, unix.NFT_MSG_NEWTABLE, 0)
	if f.set != nil {
		appendSet(b, probeTable, *f.set, uint32(b.Len()))
	}
	if f.hook == nil {
		return nil
	}
	base := f.chain()
	for _, s := range f.rule {
		set, chain := nftables.Uses(s)
		if set != "" {
			appendSet(b, probeTable, f.sets[set], uint32(b.Len()))
		}
		if chain != "" {
			appendChain(b, probeTable, nftables.Chain{Family: f.family, Name: chain})
		}
	}
	appendChain(b, probeTable, base)
	if f.rule == nil {
		return nil
	}
	return appendRule(b, probeTable, base, f.rule)
}
