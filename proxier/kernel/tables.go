package kernel

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/nftables"
)

// Table is a table of any program, without its rules and sets.
type Table struct {
	Family string // ip, ip6, inet, arp, bridge or netdev
	Name   string
	Chains []TableChain
}

// TableChain is a chain of a Table.
type TableChain struct {
	Name string
	Hook *nftables.Hook // nil: reached by jump or goto only; the name is empty if it is not a hook of IP
	Drop bool           // the policy is drop
}

// tableFamily is a family of tables.
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

// listAttempts bounds how often a list is repeated because other processes changed the ruleset meanwhile.
const listAttempts = 5

// ListTables returns all tables with their chains, by family. It keeps the kernel's order within a family. If
// other processes add and delete tables or chains all the time, some may be missing.
func ListTables(c *netlink.Conn) ([]Table, error) {
	for attempt := 1; ; attempt++ {
		interrupted := false
		tables, err := listTables(func(msgType uint16, family uint8, each func([]byte) error) error {
			err := c.Dump(msgType, family, "", "", each)
			interrupted = interrupted || errors.Is(err, netlink.ErrInterrupted)
			return uninterrupted(err)
		})
		if err != nil || !interrupted || attempt == listAttempts {
			return tables, err
		}
	}
}

func listTables(
	dump func(msgType uint16, family uint8, each func(attributes []byte) error) error,
) ([]Table, error) {
	var tables []Table
	for _, f := range tableFamilies() {
		at := map[string]int{}            // index of each table
		known := map[[2]string]struct{}{} // chains by table and name: a list may have one twice
		err := dump(unix.NFT_MSG_GETTABLE, f.number, func(attributes []byte) error {
			for typ, v := range netlink.Attrs(attributes) {
				if typ != unix.NFTA_TABLE_NAME {
					continue
				}
				if name := netlink.String(v); !has(at, name) {
					at[name] = len(tables)
					tables = append(tables, Table{Family: f.name, Name: name})
				}
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("list tables of family %s: %w", f.name, err)
		}
		err = dump(unix.NFT_MSG_GETCHAIN, f.number, func(attributes []byte) error {
			table, name, hook := parseChain(attributes)
			if i, ok := at[table]; ok && !has(known, [2]string{table, name}) {
				known[[2]string{table, name}] = struct{}{}
				c := TableChain{name, hook, hook != nil && policyDrops(attributes)}
				tables[i].Chains = append(tables[i].Chains, c)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("list chains of family %s: %w", f.name, err)
		}
	}
	return tables, nil
}

func has[K comparable, V any](m map[K]V, key K) bool {
	_, ok := m[key]
	return ok
}

// policyDrops reports whether the policy of a chain is NF_DROP of linux/netlink.h.
func policyDrops(attributes []byte) bool {
	for typ, v := range netlink.Attrs(attributes) {
		if typ == unix.NFTA_CHAIN_POLICY {
			return netlink.Uint32(v) == 0
		}
	}
	return false
}
