package kernel

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Apply commits a Delta as one transaction. An error names the element or rule that the kernel refused.
func (c *Conn) Apply(d *rules.Delta) error {
	b, err := c.encode(d)
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

// DeleteStale deletes chains and sets that nothing uses any more after a Delta. It may fail without harm, for
// example with unix.EBUSY (see rules.Delta): try again later.
func (c *Conn) DeleteStale(d *rules.Delta) error {
	if len(d.StaleChains)+len(d.StaleSets) == 0 {
		return nil
	}
	b := c.begin(touched(&rules.Delta{StaleChains: d.StaleChains, StaleSets: d.StaleSets})...)
	for _, chain := range d.StaleChains {
		appendFlush(b, chain)
	}
	// Rules use sets, and elements of maps use chains.
	for _, set := range d.StaleSets {
		appendDeleteSet(b, set)
	}
	for _, chain := range d.StaleChains {
		b.Message(unix.NFT_MSG_DELCHAIN, 0, chain.Family.Number())
		b.String(unix.NFTA_CHAIN_TABLE, nftables.TableName)
		b.String(unix.NFTA_CHAIN_NAME, chain.Name)
	}
	return c.Commit(b)
}

// Cleanup deletes the tables of the families. It returns the families that had one.
func (c *Conn) Cleanup(families []service.Family) (found []service.Family, err error) {
	for _, f := range families {
		exists, err := newReader(c, f).exists()
		if err != nil {
			return found, err
		}
		if !exists {
			continue
		}
		b := c.begin(f)
		appendTable(b, nftables.TableName, f, unix.NFT_MSG_DELTABLE, 0)
		if err := c.Commit(b); err != nil {
			return found, fmt.Errorf("delete table %s %s: %w", f, nftables.TableName, err)
		}
		found = append(found, f)
	}
	return found, nil
}
