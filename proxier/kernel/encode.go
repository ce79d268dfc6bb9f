package kernel

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// elementBytes is about the size of an element in a batch.
const elementBytes = 112

// encode writes a Delta as a batch.
func (c *Conn) encode(d *rules.Delta) (*netlink.Batch, error) {
	b, texts := &netlink.Batch{}, map[int]string{}
	note := func(format string, args ...any) { texts[b.Len()-1] = fmt.Sprintf(format, args...) }
	b.Begin()
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
	for _, f := range d.Replaced() {
		appendFlush(b, nftables.Chain{Family: f})
		note("flush table %s %s", f, nftables.TableName)
	}
	for _, s := range d.Replace {
		appendDeleteSet(b, s)
		note("delete set %s %s %s", s.ID.Family, nftables.TableName, s.Name)
	}
	for i, s := range slices.Concat(d.Replace, d.Sets) {
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
	deleted := appendElements(b, unix.NFT_MSG_DELSETELEM, c.echo(b, d), d.Delete)
	added := appendElements(b, unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE|unix.NLM_F_EXCL, d.Add)
	b.Describe = func(msg, offset int) string {
		if text, ok := texts[msg]; ok {
			return text
		}
		return cmp.Or(describe("delete", d.Delete, deleted, msg, offset),
			describe("add", d.Add, added, msg, offset))
	}
	return b, nil
}

// describe names the element at the offset of a message, and returns "" if the message has no elements.
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
	return fmt.Sprintf("%s element %s %s %s { %s }%s",
		verb, e.Set.Family, nftables.TableName, e.Set.Kind, e, which)
}

// appendTable appends a message about a table: NFT_MSG_NEWTABLE with flags, or NFT_MSG_DELTABLE.
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

// tableFlags returns the flags of the tables that the Conn creates.
func (c *Conn) tableFlags() uint32 {
	if c.own {
		return tableOwned
	}
	return 0
}

// hookNames returns the names of hooks by number, from enum nf_inet_hooks of linux/netfilter.h.
func hookNames() [5]string {
	return [...]string{"prerouting", "input", "forward", "output", "postrouting"}
}

// hookNumber returns the number of a hook. The kernel has no hook with the number of an unknown name.
func hookNumber(name string) uint32 {
	names := hookNames()
	return uint32(slices.Index(names[:], name))
}

// policyAccept is NF_ACCEPT of linux/netfilter.h.
const policyAccept = 1

// appendChain appends the message that creates a chain if it does not exist.
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

// appendFlush appends the message that deletes all rules of a chain, or of the table for a chain without a
// name.
func appendFlush(b *netlink.Batch, chain nftables.Chain) {
	b.Message(unix.NFT_MSG_DELRULE, 0, chain.Family.Number())
	b.String(unix.NFTA_RULE_TABLE, nftables.TableName)
	if chain.Name != "" {
		b.String(unix.NFTA_RULE_CHAIN, chain.Name)
	}
}

// appendRules appends the chain's rules and adds their texts by message.
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

// appendRule appends the message that adds a rule at the end of a chain.
func appendRule(b *netlink.Batch, table string, chain nftables.Chain, rule nftables.Rule) error {
	b.Message(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, chain.Family.Number())
	b.String(unix.NFTA_RULE_TABLE, table)
	b.String(unix.NFTA_RULE_CHAIN, chain.Name)
	list := b.Nest(unix.NFTA_RULE_EXPRESSIONS)
	err := marshal(chain, rule, func(expression []byte) {
		b.Bytes(unix.NLA_F_NESTED|unix.NFTA_LIST_ELEM, expression)
	})
	b.EndNest(list)
	return err
}

// marshal calls each with the attributes of each of the rule's expressions.
func marshal(chain nftables.Chain, rule nftables.Rule, each func(expression []byte)) error {
	for _, e := range rule.Expressions(chain.Family) {
		attributes, err := expr.Marshal(chain.Family.Number(), e)
		if err != nil {
			return fmt.Errorf("encode rule %q of chain %s: %w", rule.Text(chain.Family), chain.Name, err)
		}
		each(attributes)
	}
	return nil
}
