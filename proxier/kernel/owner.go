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

// begin starts a batch on existing tables.
func (c *Conn) begin(families ...service.Family) *netlink.Batch {
	b, texts := &netlink.Batch{}, map[int]string{}
	b.Begin(0)
	for _, f := range families {
		c.appendOwned(b, f, texts)
	}
	b.Describe = func(msg, _ int) string { return texts[msg] }
	return b
}

// touched returns the families whose tables the Delta changes.
func touched(d *rules.Delta) []service.Family {
	in := map[service.Family]bool{}
	for _, list := range [][]nftables.Set{d.Sets, d.StaleSets} {
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
