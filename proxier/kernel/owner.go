package kernel

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Flags of tables, NFT_TABLE_F_OWNER (Linux 5.12) and NFT_TABLE_F_PERSIST (Linux 6.9). Only the socket that
// owns a table can change it, and nft flush ruleset leaves it alone. When the owner's socket is closed, a
// table that persists stays without an owner, and another socket can adopt it.
const (
	tablePersists = 0x4
	tableOwned    = 0x2 | tablePersists
)

// canOwn reports whether the kernel has tables that persist without their owner.
func (c *Conn) canOwn() bool {
	var b netlink.Batch
	b.Message(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, unix.NFPROTO_IPV4)
	b.String(unix.NFTA_TABLE_NAME, probeTable)
	b.U32(unix.NFTA_TABLE_FLAGS, tableOwned)
	return c.Check(&b) == nil
}

// appendOwned appends the message that adopts an existing table whose owner is gone. It changes nothing if
// the table is already ours, and appends nothing if the table does not persist.
func (c *Conn) appendOwned(b *netlink.Batch, f service.Family, texts map[int]string) {
	if !c.owned[f] {
		return
	}
	appendTable(b, nftables.TableName, f, unix.NFT_MSG_NEWTABLE, tableOwned)
	texts[b.Len()-1] = fmt.Sprintf("adopt table %s %s, which may be owned by another nftproxy "+
		"that is still running", f, nftables.TableName)
}

// look reports whether there is a table, and the address of the socket that owns it, or 0.
func (c *Conn) look(f service.Family) (found bool, owner uint32, err error) {
	flags, owner, found, err := c.Table(f.Number(), nftables.TableName)
	if found {
		c.owned[f] = flags&tablePersists != 0
	}
	return found, owner, err
}

// holds reports whether we own the table since it was seen last. Then it is as we left it: while its owner's
// socket is open, no other process can change or delete it.
func (c *Conn) holds(f service.Family) bool { return c.held[f] != 0 && c.held[f] == c.Opened() }

// hold reports whether there is a table, and whether we hold it already. It adopts a table that lost its
// owner: the process before this one has ended, or the socket was lost. Until then every process can change
// or flush it.
func (c *Conn) hold(f service.Family) (found, held bool, err error) {
	if c.holds(f) {
		return true, true, nil
	}
	found, owner, err := c.look(f)
	if owner != 0 && owner == c.Port() {
		c.held[f] = c.Opened()
		return true, true, nil
	}
	if !c.own || !found || !c.owned[f] || owner != 0 {
		return found, false, err
	}
	if err := c.Commit(c.begin(f)); err != nil {
		return true, false, fmt.Errorf("own table %s %s: %w", f, nftables.TableName, err)
	}
	return true, false, nil
}

// begin starts a batch on existing tables.
func (c *Conn) begin(families ...service.Family) *netlink.Batch {
	b, texts := &netlink.Batch{}, map[int]string{}
	b.Begin()
	for _, f := range families {
		c.appendOwned(b, f, texts)
	}
	b.Describe = func(msg, _ int) string { return texts[msg] }
	return b
}

// touched returns the families whose tables the Delta changes.
func touched(d *rules.Delta) []service.Family {
	in := map[service.Family]bool{}
	for _, list := range [][]nftables.Set{d.Replace, d.Sets, d.StaleSets} {
		for i := range list {
			in[list[i].ID.Family] = true
		}
	}
	for _, list := range [][]nftables.Chain{d.Chains, d.StaleChains} {
		for i := range list {
			in[list[i].Family] = true
		}
	}
	for _, list := range [][]nftables.Element{d.Delete, d.Add} {
		for i := range list {
			in[list[i].Set.Family] = true
		}
	}
	return slices.DeleteFunc(service.Families(), func(f service.Family) bool { return !in[f] })
}
