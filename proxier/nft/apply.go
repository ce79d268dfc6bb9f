package nft

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/rules"
)

// Apply commits a Delta as one transaction. A generation other than 0 is the one
// that the Delta was built on: if it has passed, the error is ErrStale and
// nothing is changed. An error names the element or rule that the kernel refused.
func (c *Conn) Apply(d *rules.Delta, generation uint32) error {
	b, err := c.encode(d, generation)
	if err != nil {
		return err
	}
	if err := c.Commit(b); err != nil {
		return err
	}
	for _, f := range d.Tables {
		c.owned[f] = c.own
	}
	return nil
}

// Tidy does what follows a Delta: it deletes what has no user any more and forgets
// clients of endpoints that are gone, of which it returns the number. It may fail
// without harm, with unix.EBUSY for one, see rules.Delta; try again later.
func (c *Conn) Tidy(d *rules.Delta) (forgotten int, err error) {
	err = c.sweep(d)
	for _, s := range d.Forget {
		n, one := c.forget(s)
		forgotten, err = forgotten+n, errors.Join(err, one)
	}
	return forgotten, err
}

// sweep deletes the chains and sets that a Delta left without a user.
func (c *Conn) sweep(d *rules.Delta) error {
	if len(d.StaleChains)+len(d.StaleSets) == 0 {
		return nil
	}
	b := c.begin(touched(&rules.Delta{StaleChains: d.StaleChains, StaleSets: d.StaleSets})...)
	for _, chain := range d.StaleChains {
		appendFlush(b, chain)
	}
	for _, chain := range d.StaleChains {
		b.Message(unix.NFT_MSG_DELCHAIN, 0, proto(chain.Family))
		b.String(unix.NFTA_CHAIN_TABLE, rules.TableName)
		b.String(unix.NFTA_CHAIN_NAME, chain.Name)
	}
	for _, set := range d.StaleSets {
		b.Message(unix.NFT_MSG_DELSET, 0, proto(set.ID.Family))
		b.String(unix.NFTA_SET_TABLE, rules.TableName)
		b.String(unix.NFTA_SET_NAME, set.Name)
	}
	return c.Commit(b)
}

// Cleanup deletes the tables of the families, and says which were there.
func (c *Conn) Cleanup(families []rules.Family) (found []rules.Family, err error) {
	for _, f := range families {
		r := &reader{conn: c, family: f, table: rules.NewTable()}
		there, err := r.exists()
		if err != nil || !there {
			continue
		}
		b := c.begin(f)
		appendTable(b, f, unix.NFT_MSG_DELTABLE, 0)
		if err := c.Commit(b); err != nil {
			return found, fmt.Errorf("delete table %s %s: %w", f, rules.TableName, err)
		}
		found = append(found, f)
	}
	return found, nil
}

// elementBytes is about what an element takes in a batch.
const elementBytes = 112

// encode writes a Delta as a batch.
func (c *Conn) encode(d *rules.Delta, generation uint32) (*Batch, error) {
	b, texts := &Batch{}, map[int]string{}
	note := func(format string, args ...any) { texts[b.Len()-1] = fmt.Sprintf(format, args...) }
	b.Begin(generation)
	b.Grow(elementBytes * (len(d.Delete) + len(d.Add)))
	for _, f := range d.Reset {
		c.appendOwned(b, f, texts)
		appendTable(b, f, unix.NFT_MSG_DELTABLE, 0)
		note("delete table %s %s", f, rules.TableName)
	}
	for _, f := range d.Tables {
		appendTable(b, f, unix.NFT_MSG_NEWTABLE, c.tableFlags())
		note("add table %s %s", f, rules.TableName)
	}
	for _, f := range touched(d) {
		if !slices.Contains(d.Tables, f) {
			c.appendOwned(b, f, texts)
		}
	}
	for i, s := range d.Sets {
		appendSet(b, s, uint32(i+1))
		note("add set %s %s %s", s.ID.Family, rules.TableName, s.Name)
	}
	for _, chain := range d.Chains {
		appendChain(b, chain)
		note("add chain %s %s %s", chain.Family, rules.TableName, chain.Name)
		appendFlush(b, chain)
		note("flush chain %s %s %s", chain.Family, rules.TableName, chain.Name)
	}
	for _, chain := range d.Chains {
		if err := appendRules(b, chain, texts); err != nil {
			return nil, err
		}
	}
	deleted := appendElements(b, unix.NFT_MSG_DELSETELEM, d.Delete)
	added := appendElements(b, unix.NFT_MSG_NEWSETELEM, d.Add)
	b.Describe = func(msg, offset int) string {
		if text, ok := texts[msg]; ok {
			return text
		}
		return cmp.Or(describe("delete", d.Delete, deleted, msg, offset), describe("add", d.Add, added, msg, offset))
	}
	return b, nil
}

// describe names the element that an error at the offset of a message is about.
func describe(verb string, elements []rules.Element, at []position, msg, offset int) string {
	found := -1
	for i, p := range at {
		if int(p.message) == msg && (found < 0 || int(p.offset) <= offset) {
			found = i
		}
	}
	if found < 0 {
		return ""
	}
	e := elements[found]
	which := ""
	if offset == 0 {
		which = " and following"
	}
	return fmt.Sprintf("%s element %s %s %s { %s }%s", verb, e.Set.Family, rules.TableName, e.Set.Kind, e, which)
}

func appendTable(b *Batch, f rules.Family, msgType uint16, tableFlags uint32) {
	flags := uint16(0)
	if msgType == unix.NFT_MSG_NEWTABLE {
		flags = unix.NLM_F_CREATE
	}
	b.Message(msgType, flags, proto(f))
	b.String(unix.NFTA_TABLE_NAME, rules.TableName)
	if msgType == unix.NFT_MSG_NEWTABLE {
		b.U32(unix.NFTA_TABLE_FLAGS, tableFlags)
	}
}

func (c *Conn) tableFlags() uint32 {
	if c.own {
		return tableOwned
	}
	return 0
}

// hookNumbers are those of linux/netfilter.h, enum nf_inet_hooks.
func hookNumber(name string) uint32 {
	return uint32(slices.Index([]string{"prerouting", "input", "forward", "output", "postrouting"}, name))
}

// appendChain creates a chain, if it is not there.
func appendChain(b *Batch, chain rules.Chain) {
	b.Message(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, proto(chain.Family))
	b.String(unix.NFTA_CHAIN_TABLE, rules.TableName)
	b.String(unix.NFTA_CHAIN_NAME, chain.Name)
	if h := chain.Hook; h != nil {
		hook := b.Nest(unix.NFTA_CHAIN_HOOK)
		b.U32(unix.NFTA_HOOK_HOOKNUM, hookNumber(h.Name))
		b.U32(unix.NFTA_HOOK_PRIORITY, uint32(int32(h.Priority)))
		b.EndNest(hook)
		b.U32(unix.NFTA_CHAIN_POLICY, policyAccept)
		b.String(unix.NFTA_CHAIN_TYPE, "nat")
	}
}

// policyAccept is NF_ACCEPT of linux/netfilter.h.
const policyAccept = 1

// appendFlush deletes all rules of a chain.
func appendFlush(b *Batch, chain rules.Chain) {
	b.Message(unix.NFT_MSG_DELRULE, 0, proto(chain.Family))
	b.String(unix.NFTA_RULE_TABLE, rules.TableName)
	b.String(unix.NFTA_RULE_CHAIN, chain.Name)
}

// appendRules appends the chain's rules and notes their texts by message.
func appendRules(b *Batch, chain rules.Chain, texts map[int]string) error {
	for _, rule := range chain.Rules {
		b.Message(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, proto(chain.Family))
		b.String(unix.NFTA_RULE_TABLE, rules.TableName)
		b.String(unix.NFTA_RULE_CHAIN, chain.Name)
		list := b.Nest(unix.NFTA_RULE_EXPRESSIONS)
		for _, e := range expressions(rule, chain.Family) {
			data, err := expr.Marshal(proto(chain.Family), e)
			if err != nil {
				return fmt.Errorf("encode rule %q of chain %s: %w", rule.Text(chain.Family), chain.Name, err)
			}
			b.Bytes(unix.NLA_F_NESTED|unix.NFTA_LIST_ELEM, data)
		}
		b.EndNest(list)
		texts[b.Len()-1] = fmt.Sprintf("add rule %s %s %s %s", chain.Family, rules.TableName, chain.Name, rule.Text(chain.Family))
	}
	return nil
}
