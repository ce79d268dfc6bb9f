package takeover

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
)

// jump is a rule that jumps or goes to other chains.
type jump struct {
	chain   string // that has the rule
	handle  uint64
	targets []string
}

// listJumps returns the rules of one chain that lead to other chains. The kernel lists the rules of one chain
// at once, and those of a table with 50,000 chains in 4 s (6.18).
func listJumps(c *netlink.Conn, family uint8, table, chain string) ([]jump, error) {
	var found []jump
	err := c.Dump(unix.NFT_MSG_GETRULE, family, table, chain, func(attributes []byte) error {
		var j jump
		for typ, v := range netlink.Attrs(attributes) {
			switch typ {
			case unix.NFTA_RULE_CHAIN:
				j.chain = netlink.String(v)
			case unix.NFTA_RULE_HANDLE:
				j.handle = number64(v)
			case unix.NFTA_RULE_EXPRESSIONS:
				j.targets = jumpTargets(v)
			}
		}
		if len(j.targets) > 0 {
			found = append(found, j)
		}
		return nil
	})
	// Other processes may commit all the time. If a jump is missing, the kernel refuses to delete its target.
	if err != nil && !errors.Is(err, netlink.ErrInterrupted) {
		return nil, fmt.Errorf("list rules of chain %s of table %s: %w", chain, table, err)
	}
	return found, nil
}

// jumpTargets returns the chains in the verdicts of a rule's expressions. iptables-nft writes jumps as such
// verdicts too.
func jumpTargets(list []byte) (targets []string) {
	// Each level is one attribute deeper: expression, its data, the value, the verdict, the chain.
	path := []uint16{unix.NFTA_LIST_ELEM, unix.NFTA_EXPR_DATA, unix.NFTA_IMMEDIATE_DATA,
		unix.NFTA_DATA_VERDICT, unix.NFTA_VERDICT_CHAIN}
	var walk func(level int, b []byte)
	walk = func(level int, b []byte) {
		if level == 1 && expressionName(b) != "immediate" {
			return
		}
		if level == len(path) {
			targets = append(targets, netlink.String(b))
			return
		}
		for typ, v := range netlink.Attrs(b) {
			if typ == path[level] {
				walk(level+1, v)
			}
		}
	}
	walk(0, list)
	return targets
}

func expressionName(expression []byte) string {
	for typ, v := range netlink.Attrs(expression) {
		if typ == unix.NFTA_EXPR_NAME {
			return netlink.String(v)
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
