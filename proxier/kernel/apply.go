package kernel

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Apply commits a Delta as one transaction. A generation other than 0 is the one
// that the Delta was built on: if it has passed, the error is netlink.ErrStale and
// nothing is changed. An error names the element or rule that the kernel refused.
func (c *Conn) Apply(d *rules.Delta, generation uint32) error {
	b, err := c.encode(d, generation)
	if err != nil {
		return err
	}
	if err := c.commit(b); err != nil {
		return err
	}
	for _, f := range d.Tables {
		c.owned[f] = c.own
	}
	return nil
}

// DeleteStale cleans up after a Delta: it deletes chains and sets that nothing uses any more and expires the clients
// of removed endpoints, whose number it returns. It may fail without harm, for example with unix.EBUSY (see
// rules.Delta); try again later.
func (c *Conn) DeleteStale(d *rules.Delta) (expired int, err error) {
	err = c.deleteUnused(d)
	for _, s := range d.ExpireClients {
		n, one := c.expireClients(s)
		expired, err = expired+n, errors.Join(err, one)
	}
	return expired, err
}

// deleteUnused deletes the chains and sets that a Delta left without a user.
func (c *Conn) deleteUnused(d *rules.Delta) error {
	if len(d.StaleChains)+len(d.StaleSets) == 0 {
		return nil
	}
	b := c.begin(touched(&rules.Delta{StaleChains: d.StaleChains, StaleSets: d.StaleSets})...)
	for _, chain := range d.StaleChains {
		appendFlush(b, chain)
	}
	for _, chain := range d.StaleChains {
		b.Message(unix.NFT_MSG_DELCHAIN, 0, chain.Family.Number())
		b.String(unix.NFTA_CHAIN_TABLE, nftables.TableName)
		b.String(unix.NFTA_CHAIN_NAME, chain.Name)
	}
	for _, set := range d.StaleSets {
		b.Message(unix.NFT_MSG_DELSET, 0, set.ID.Family.Number())
		b.String(unix.NFTA_SET_TABLE, nftables.TableName)
		b.String(unix.NFTA_SET_NAME, set.Name)
	}
	return c.commit(b)
}

// Cleanup deletes the tables of the families, and says which were there.
func (c *Conn) Cleanup(families []service.Family) (found []service.Family, err error) {
	for _, f := range families {
		r := newReader(c, f)
		there, err := r.exists()
		if err != nil {
			return found, err
		}
		if !there {
			continue
		}
		b := c.begin(f)
		appendTable(b, nftables.TableName, f, unix.NFT_MSG_DELTABLE, 0)
		if err := c.commit(b); err != nil {
			return found, fmt.Errorf("delete table %s %s: %w", f, nftables.TableName, err)
		}
		found = append(found, f)
	}
	return found, nil
}

// elementBytes is about what an element takes in a batch.
const elementBytes = 112

// encode writes a Delta as a batch.
func (c *Conn) encode(d *rules.Delta, generation uint32) (*netlink.Batch, error) {
	b, texts := &netlink.Batch{}, map[int]string{}
	note := func(format string, args ...any) { texts[b.Len()-1] = fmt.Sprintf(format, args...) }
	b.Begin(generation)
	b.Grow(elementBytes * (len(d.Delete) + len(d.Add)))
	for _, broken := range d.Reset {
		c.appendOwned(b, broken.Family, texts)
		appendTable(b, nftables.TableName, broken.Family, unix.NFT_MSG_DELTABLE, 0)
		note("delete table %s %s", broken.Family, nftables.TableName)
	}
	for _, f := range d.Tables {
		appendTable(b, nftables.TableName, f, unix.NFT_MSG_NEWTABLE, c.tableFlags())
		note("add table %s %s", f, nftables.TableName)
	}
	for _, f := range touched(d) {
		if !slices.Contains(d.Tables, f) {
			c.appendOwned(b, f, texts)
		}
	}
	for i, s := range d.Sets {
		appendSet(b, nftables.TableName, s, uint32(i+1))
		note("add set %s %s %s", s.ID.Family, nftables.TableName, s.Name)
	}
	for _, chain := range d.Chains {
		appendChain(b, nftables.TableName, chain)
		note("add chain %s %s %s", chain.Family, nftables.TableName, chain.Name)
		appendFlush(b, chain)
		note("flush chain %s %s %s", chain.Family, nftables.TableName, chain.Name)
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
func describe(verb string, elements []nftables.Element, at []position, msg, offset int) string {
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
	return fmt.Sprintf("%s element %s %s %s { %s }%s", verb, e.Set.Family, nftables.TableName, e.Set.Kind, e, which)
}

func appendTable(b *netlink.Batch, name string, f service.Family, msgType uint16, tableFlags uint32) {
	flags := uint16(0)
	if msgType == unix.NFT_MSG_NEWTABLE {
		flags = unix.NLM_F_CREATE
	}
	b.Message(msgType, flags, f.Number())
	b.String(unix.NFTA_TABLE_NAME, name)
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
func appendChain(b *netlink.Batch, table string, chain nftables.Chain) {
	b.Message(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, chain.Family.Number())
	b.String(unix.NFTA_CHAIN_TABLE, table)
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
func appendFlush(b *netlink.Batch, chain nftables.Chain) {
	b.Message(unix.NFT_MSG_DELRULE, 0, chain.Family.Number())
	b.String(unix.NFTA_RULE_TABLE, nftables.TableName)
	b.String(unix.NFTA_RULE_CHAIN, chain.Name)
}

// appendRules appends the chain's rules and notes their texts by message.
func appendRules(b *netlink.Batch, chain nftables.Chain, texts map[int]string) error {
	for _, rule := range chain.Rules {
		if err := appendRule(b, nftables.TableName, chain, rule); err != nil {
			return err
		}
		texts[b.Len()-1] = fmt.Sprintf("add rule %s %s %s %s",
			chain.Family, nftables.TableName, chain.Name, rule.Text(chain.Family))
	}
	return nil
}

// appendRule appends a rule to a chain.
func appendRule(b *netlink.Batch, table string, chain nftables.Chain, rule nftables.Rule) error {
	b.Message(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, chain.Family.Number())
	b.String(unix.NFTA_RULE_TABLE, table)
	b.String(unix.NFTA_RULE_CHAIN, chain.Name)
	list := b.Nest(unix.NFTA_RULE_EXPRESSIONS)
	for _, e := range rule.Expressions(chain.Family) {
		data, err := expr.Marshal(chain.Family.Number(), e)
		if err != nil {
			return fmt.Errorf("encode rule %q of chain %s: %w", rule.Text(chain.Family), chain.Name, err)
		}
		b.Bytes(unix.NLA_F_NESTED|unix.NFTA_LIST_ELEM, data)
	}
	b.EndNest(list)
	return nil
}
