package nftables

import (
	"cmp"
	"fmt"

	"github.com/nftproxy/nftproxy/rules/service"
)

// Chain is a chain with its rules.
type Chain struct {
	Family service.Family
	Name   string
	Hook   *Hook // nil: only rules and maps lead to the chain
	Rules  []Rule
}

// Compare orders chains by table and name.
func (c Chain) Compare(d Chain) int {
	return cmp.Or(cmp.Compare(c.Family, d.Family), cmp.Compare(c.Name, d.Name))
}

// Hook is where packets enter a base chain. All base chains are of type nat: they see only the first packet
// of a connection.
type Hook struct {
	Name     string // prerouting, input, output or postrouting
	Priority int
}

// Head returns the line that defines a base chain, and "" for other chains.
func (c Chain) Head() string {
	if c.Hook == nil {
		return ""
	}
	return fmt.Sprintf("type nat hook %s priority %d; policy accept;", c.Hook.Name, c.Hook.Priority)
}

// Requires returns the kernel options and modules that the chain needs.
func (c Chain) Requires() string {
	if c.Hook == nil {
		return core
	}
	return "CONFIG_NFT_NAT (modules nft_chain_nat, nft_nat)"
}
