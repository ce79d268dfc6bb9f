package nft

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/netfilter"
	"github.com/nftproxy/nftproxy/rules"
)

// Table is a table of the ruleset, whoever made it, without its rules and sets.
type Table struct {
	Family string // ip, ip6, inet, arp, bridge or netdev
	Name   string
	Chains []TableChain
}

// TableChain is a chain of a Table.
type TableChain struct {
	Name string
	Hook *rules.Hook // nil for a chain that others jump to; empty names for hooks of no IP family
	Drop bool        // a packet that comes to its end is dropped
}

// tableFamily is a family that tables can be of.
type tableFamily struct {
	name   string
	number uint8
}

func tableFamilies() []tableFamily {
	return []tableFamily{
		{"ip", unix.NFPROTO_IPV4}, {"ip6", unix.NFPROTO_IPV6}, {"inet", unix.NFPROTO_INET},
		{"arp", unix.NFPROTO_ARP}, {"bridge", unix.NFPROTO_BRIDGE}, {"netdev", unix.NFPROTO_NETDEV},
	}
}

// Tables returns all tables with their chains, those of one family in the kernel's order.
func (c *Conn) Tables() ([]Table, error) {
	for attempt := 1; ; attempt++ {
		tables, err := c.tables(tableFamilies())
		if !errors.Is(err, ErrInterrupted) || attempt == readAttempts {
			return tables, err
		}
	}
}

func (c *Conn) tables(families []tableFamily) ([]Table, error) {
	var tables []Table
	for _, f := range families {
		at := map[string]int{}
		err := c.dump(unix.NFT_MSG_GETTABLE, f.number, "", "", func(attributes []byte) error {
			for typ, v := range netfilter.Attrs(attributes) {
				if typ == unix.NFTA_TABLE_NAME {
					at[netfilter.String(v)] = len(tables)
					tables = append(tables, Table{Family: f.name, Name: netfilter.String(v)})
				}
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("list tables of family %s: %w", f.name, err)
		}
		err = c.dump(unix.NFT_MSG_GETCHAIN, f.number, "", "", func(attributes []byte) error {
			table, name, hook := parseChain(attributes)
			if i, ok := at[table]; ok {
				tables[i].Chains = append(tables[i].Chains, TableChain{name, hook, hook != nil && policyDrops(attributes)})
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("list chains of family %s: %w", f.name, err)
		}
	}
	return tables, nil
}

// policyDrops reports whether the policy of a chain is NF_DROP of linux/netfilter.h.
func policyDrops(attributes []byte) bool {
	for typ, v := range netfilter.Attrs(attributes) {
		if typ == unix.NFTA_CHAIN_POLICY {
			return number(v) == 0
		}
	}
	return false
}

// tableRule is where a rule may lead.
type tableRule struct {
	chain   string
	handle  uint64
	targets []string // the chains that it jumps or goes to
}

// jumps returns the rules of a chain that lead to other chains. The rules of one
// chain are found at once; the kernel lists those of 50,000 chains in 4 s (6.18).
func (c *Conn) jumps(family uint8, table, chain string) ([]tableRule, error) {
	var jumps []tableRule
	err := c.dump(unix.NFT_MSG_GETRULE, family, table, chain, func(attributes []byte) error {
		var r tableRule
		for typ, v := range netfilter.Attrs(attributes) {
			switch typ {
			case unix.NFTA_RULE_CHAIN:
				r.chain = netfilter.String(v)
			case unix.NFTA_RULE_HANDLE:
				r.handle = number64(v)
			case unix.NFTA_RULE_EXPRESSIONS:
				r.targets = jumpTargets(v)
			}
		}
		if len(r.targets) > 0 {
			jumps = append(jumps, r)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list rules of chain %s of table %s: %w", chain, table, err)
	}
	return jumps, nil
}

// jumpTargets returns the chains in the verdicts of a rule's expressions. A jump of
// iptables-nft is such a verdict too.
func jumpTargets(list []byte) (targets []string) {
	// Each level is one attribute deeper: expression, its data, the value, the verdict, the chain.
	path := []uint16{unix.NFTA_LIST_ELEM, unix.NFTA_EXPR_DATA, unix.NFTA_IMMEDIATE_DATA, unix.NFTA_DATA_VERDICT, unix.NFTA_VERDICT_CHAIN}
	var walk func(level int, b []byte)
	walk = func(level int, b []byte) {
		if level == 1 && exprName(b) != "immediate" {
			return
		}
		if level == len(path) {
			targets = append(targets, netfilter.String(b))
			return
		}
		for typ, v := range netfilter.Attrs(b) {
			if typ == path[level] {
				walk(level+1, v)
			}
		}
	}
	walk(0, list)
	return targets
}

func exprName(expression []byte) string {
	for typ, v := range netfilter.Attrs(expression) {
		if typ == unix.NFTA_EXPR_NAME {
			return netfilter.String(v)
		}
	}
	return ""
}

func number64(v []byte) uint64 {
	if len(v) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(v)
}
