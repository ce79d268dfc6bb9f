package bytecode

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
)

// Ruleset is all tables of a network namespace.
type Ruleset struct {
	Tables []*Table
	bases  map[uint8]*[unix.NF_INET_NUMHOOKS][]*Chain // by family, in the order of evaluation
}

// Table is a table of the family ip or ip6.
type Table struct {
	Family uint8 // NFPROTO_IPV4 or NFPROTO_IPV6
	Name   string
	Chains map[string]*Chain
	Sets   map[string]*Set
}

// Chain is a chain with its rules.
type Chain struct {
	Table *Table
	Name  string
	Hook  *Hook // nil: packets come by jumps only
	Rules []Rule
}

// Rule is the expressions of a rule.
type Rule []expression

// Hook is where packets enter a base chain.
type Hook struct {
	Number   uint32 // unix.NF_INET_PRE_ROUTING and so on
	Priority int32
	Type     string // filter or nat
	Drop     bool   // the policy
}

func (c *Chain) String() string { return fmt.Sprintf("chain %s of table %s", c.Name, c.Table) }

func (t *Table) String() string {
	if t.Family == unix.NFPROTO_IPV6 {
		return "ip6 " + t.Name
	}
	return "ip " + t.Name
}

// Dumper answers dumps: a netlink.Conn, or a recording of what one answered.
type Dumper interface {
	Dump(msgType uint16, family uint8, table, name string, each func(attributes []byte) error) error
	DumpElements(family uint8, table, set string, each func(element []byte) error) error
}

// Read reads the tables of a network namespace. It refuses tables of other families than ip and ip6.
func Read(conn Dumper) (*Ruleset, error) {
	r := &Ruleset{bases: map[uint8]*[unix.NF_INET_NUMHOOKS][]*Chain{}}
	for _, family := range []uint8{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6, unix.NFPROTO_INET} {
		var tables []*Table
		err := conn.Dump(unix.NFT_MSG_GETTABLE, family, "", "", func(attributes []byte) error {
			name := netlink.String(attrs(attributes)[unix.NFTA_TABLE_NAME])
			tables = append(tables, &Table{
				Family: family, Name: name, Chains: map[string]*Chain{}, Sets: map[string]*Set{}})
			return nil
		})
		if err != nil {
			return nil, err
		}
		if family == unix.NFPROTO_INET && len(tables) > 0 {
			return nil, fmt.Errorf("table inet %s: tables of the family inet are not known", tables[0].Name)
		}
		for _, t := range tables {
			if err := t.read(conn); err != nil {
				return nil, fmt.Errorf("read table %s: %w", t, err)
			}
		}
		r.Tables = append(r.Tables, tables...)
	}
	return r, r.order()
}

func (t *Table) read(conn Dumper) error {
	dump := func(msgType uint16, name string, each func(map[uint16][]byte) error) error {
		return conn.Dump(msgType, t.Family, t.Name, name, func(b []byte) error { return each(attrs(b)) })
	}
	err := conn.Dump(unix.NFT_MSG_GETCHAIN, t.Family, "", "", func(b []byte) error {
		return t.addChain(attrs(b))
	})
	if err != nil {
		return err
	}
	if err := dump(unix.NFT_MSG_GETSET, "", t.addSet); err != nil {
		return err
	}
	for _, s := range t.Sets {
		err := conn.DumpElements(t.Family, t.Name, s.Name, func(b []byte) error { return s.add(attrs(b)) })
		if err != nil {
			return err
		}
		s.finish()
	}
	return dump(unix.NFT_MSG_GETRULE, "", t.addRule)
}

func (t *Table) addChain(a map[uint16][]byte) error {
	if netlink.String(a[unix.NFTA_CHAIN_TABLE]) != t.Name {
		return nil
	}
	c := &Chain{Table: t, Name: netlink.String(a[unix.NFTA_CHAIN_NAME])}
	t.Chains[c.Name] = c
	nested, base := a[unix.NFTA_CHAIN_HOOK]
	if !base {
		return nil
	}
	hook := attrs(nested)
	const verdictDrop = 0 // NF_DROP of linux/netfilter.h
	c.Hook = &Hook{
		Number:   netlink.Uint32(hook[unix.NFTA_HOOK_HOOKNUM]),
		Priority: int32(netlink.Uint32(hook[unix.NFTA_HOOK_PRIORITY])),
		Type:     netlink.String(a[unix.NFTA_CHAIN_TYPE]),
		Drop:     netlink.Uint32(a[unix.NFTA_CHAIN_POLICY]) == verdictDrop,
	}
	if c.Hook.Type != "filter" && c.Hook.Type != "nat" || c.Hook.Number >= unix.NF_INET_NUMHOOKS {
		return fmt.Errorf("%s: type %s at hook %d is not known", c, c.Hook.Type, c.Hook.Number)
	}
	return nil
}

func (t *Table) addRule(a map[uint16][]byte) error {
	c := t.Chains[netlink.String(a[unix.NFTA_RULE_CHAIN])]
	if c == nil {
		return fmt.Errorf("a rule is in chain %s, which is not there", a[unix.NFTA_RULE_CHAIN])
	}
	var rule Rule
	for _, nested := range netlink.Attrs(a[unix.NFTA_RULE_EXPRESSIONS]) {
		e := attrs(nested)
		x, err := t.expression(netlink.String(e[unix.NFTA_EXPR_NAME]), attrs(e[unix.NFTA_EXPR_DATA]))
		if err != nil {
			return fmt.Errorf("%s, rule %d: %w", c, len(c.Rules)+1, err)
		}
		rule = append(rule, x)
	}
	c.Rules = append(c.Rules, rule)
	return nil
}

// attrs returns attributes by their type.
func attrs(b []byte) map[uint16][]byte {
	out := map[uint16][]byte{}
	for typ, v := range netlink.Attrs(b) {
		out[typ] = v
	}
	return out
}
