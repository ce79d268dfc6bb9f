package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
)

// chains are the chains of a table: their hooks and their rules, by name. The rules are in normal form.
//
// The kernel lists the chains of all tables of a family. A chain may be missing from hooks if other processes
// added or deleted theirs meanwhile. If it has rules it is known by them.
type chains struct {
	hooks map[string]*nftables.Hook
	rules map[string][]string
}

// chains reads all chains with their rules.
func (r *reader) chains() (chains, error) {
	found := chains{map[string]*nftables.Hook{}, map[string][]string{}}
	err := r.dump(unix.NFT_MSG_GETCHAIN, "", func(attributes []byte) error {
		table, name, hook := parseChain(attributes)
		if table == nftables.TableName {
			found.hooks[name] = hook
			r.table.Chains[name] = false
		}
		return nil
	})
	if err != nil {
		return found, err
	}
	err = r.dump(unix.NFT_MSG_GETRULE, nftables.TableName, func(attributes []byte) error {
		chain, normal := parseRule(attributes)
		found.rules[chain] = append(found.rules[chain], normal)
		r.table.Chains[chain] = false
		return nil
	})
	return found, err
}

// fingerprint returns a hash of all chains and rules of the table, with their handles: it is another one when
// a chain or a rule was replaced by the same.
func (r *reader) fingerprint() (uint64, error) {
	var h maphash.Hash
	h.SetSeed(r.conn.seed)
	err := r.dump(unix.NFT_MSG_GETCHAIN, "", func(attributes []byte) error {
		for typ, v := range netlink.Attrs(attributes) {
			if typ == unix.NFTA_CHAIN_TABLE && string(bytes.TrimRight(v, "\x00")) != nftables.TableName {
				return nil
			}
		}
		for typ, v := range netlink.Attrs(attributes) {
			if typ != unix.NFTA_CHAIN_USE {
				h.Write(v)
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	err = r.dump(unix.NFT_MSG_GETRULE, nftables.TableName, func(attributes []byte) error {
		h.Write(attributes)
		return nil
	})
	return h.Sum64(), err
}

// compare records in t which of the wanted chains the kernel has with the same rules.
func (c chains) compare(t *rules.TableState, want []nftables.Chain) error {
	for _, chain := range want {
		if _, ok := t.Chains[chain.Name]; !ok {
			continue
		}
		hook, listed := c.hooks[chain.Name]
		if listed && ((hook == nil) != (chain.Hook == nil) || hook != nil && *hook != *chain.Hook) {
			t.Broken = fmt.Sprintf("chain %s has another hook", chain.Name)
		}
		normal, err := normalRules(chain)
		if err != nil {
			return err
		}
		t.Chains[chain.Name] = slices.Equal(c.rules[chain.Name], normal)
	}
	return nil
}

func parseChain(attributes []byte) (table, name string, hook *nftables.Hook) {
	for typ, v := range netlink.Attrs(attributes) {
		switch typ {
		case unix.NFTA_CHAIN_TABLE:
			table = netlink.String(v)
		case unix.NFTA_CHAIN_NAME:
			name = netlink.String(v)
		case unix.NFTA_CHAIN_HOOK:
			hook = parseHook(v)
		}
	}
	return table, name, hook
}

func parseHook(nested []byte) *nftables.Hook {
	hook := &nftables.Hook{}
	for typ, v := range netlink.Attrs(nested) {
		switch typ {
		case unix.NFTA_HOOK_HOOKNUM:
			names := hookNames()
			if n := netlink.Uint32(v); n < uint32(len(names)) {
				hook.Name = names[n]
			}
		case unix.NFTA_HOOK_PRIORITY:
			hook.Priority = int(int32(netlink.Uint32(v)))
		}
	}
	return hook
}

func parseRule(attributes []byte) (chain, normal string) {
	var b strings.Builder
	for typ, v := range netlink.Attrs(attributes) {
		switch typ {
		case unix.NFTA_RULE_CHAIN:
			chain = netlink.String(v)
		case unix.NFTA_RULE_EXPRESSIONS:
			for _, e := range netlink.Attrs(v) {
				writeExpression(&b, e)
			}
		}
	}
	return chain, b.String()
}

// normalRules returns the normal forms of a chain's rules as nftproxy programs them.
func normalRules(chain nftables.Chain) ([]string, error) {
	out := make([]string, len(chain.Rules))
	for i, rule := range chain.Rules {
		var b strings.Builder
		err := marshal(chain, rule, func(expression []byte) { writeExpression(&b, expression) })
		if err != nil {
			return nil, err
		}
		out[i] = b.String()
	}
	return out, nil
}

// writeExpression writes an expression in a normal form, which is the same for what was sent to the kernel
// and for what the kernel sends back: attributes by number, without those that are zero, which the kernel
// adds when they were not sent.
func writeExpression(b *strings.Builder, attributes []byte) {
	var name string
	for typ, v := range netlink.Attrs(attributes) {
		switch typ {
		case unix.NFTA_EXPR_NAME:
			name = netlink.String(v)
			b.WriteString(name)
		case unix.NFTA_EXPR_DATA:
			writeNormal(b, name, v)
		}
	}
	b.WriteByte('\n')
}

// natAdded are the flags that the kernel adds to a nat expression because of its registers:
// NF_NAT_RANGE_MAP_IPS and NF_NAT_RANGE_PROTO_SPECIFIED.
const natAdded = 3

// writeNormal writes the attributes of an expression in normal form.
func writeNormal(b *strings.Builder, name string, attributes []byte) {
	type attribute struct {
		typ   uint16
		value []byte
	}
	var list []attribute
	for typ, v := range netlink.Attrs(attributes) {
		if name == "nat" && typ == unix.NFTA_NAT_FLAGS {
			v = binary.BigEndian.AppendUint32(nil, netlink.Uint32(v)&^natAdded)
		}
		if slices.ContainsFunc(v, func(c byte) bool { return c != 0 }) {
			list = append(list, attribute{typ, v})
		}
	}
	slices.SortStableFunc(list, func(x, y attribute) int { return int(x.typ) - int(y.typ) })
	for _, a := range list {
		fmt.Fprintf(b, " %d:", a.typ)
		if isData(name, a.typ) {
			b.WriteByte('{')
			writeNormal(b, "data", a.value)
			b.WriteByte('}')
		} else {
			fmt.Fprintf(b, "%x", a.value)
		}
	}
}

// isData reports whether an attribute holds others: a value or a verdict.
func isData(name string, typ uint16) bool {
	switch name {
	case "cmp":
		return typ == unix.NFTA_CMP_DATA
	case "immediate":
		return typ == unix.NFTA_IMMEDIATE_DATA
	case "bitwise":
		return typ == unix.NFTA_BITWISE_MASK || typ == unix.NFTA_BITWISE_XOR
	case "data":
		return typ == unix.NFTA_DATA_VERDICT
	}
	return false
}
