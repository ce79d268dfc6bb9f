package kernel

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Flags of tables, NFT_TABLE_F_OWNER and NFT_TABLE_F_PERSIST (Linux 6.9): only the
// socket that owns a table can change it, and nft flush ruleset passes it by. When the
// socket is closed a table that persists stays, without owner, for another to adopt.
const (
	tablePersists = 0x4
	tableOwned    = 0x2 | tablePersists
)

// canOwn finds out whether the kernel has tables that persist without their owner.
func (c *Conn) canOwn() bool {
	var b netlink.Batch
	b.Message(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, unix.NFPROTO_IPV4)
	b.String(unix.NFTA_TABLE_NAME, probeTable)
	b.U32(unix.NFTA_TABLE_FLAGS, tableOwned)
	return c.Check(&b) == nil
}

// appendOwned appends what makes an existing table ours to change: nothing if it is
// ours already, adoption if its owner is gone.
func (c *Conn) appendOwned(b *netlink.Batch, f service.Family, texts map[int]string) {
	if !c.owned[f] {
		return
	}
	appendTable(b, nftables.TableName, f, unix.NFT_MSG_NEWTABLE, tableOwned)
	texts[b.Len()-1] = fmt.Sprintf("adopt table %s %s, which may be owned by another nftproxy that is still running", f, nftables.TableName)
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

// touched returns the families that the Delta changes something in.
func touched(d *rules.Delta) []service.Family {
	in := map[service.Family]bool{}
	for _, s := range d.Sets {
		in[s.ID.Family] = true
	}
	for _, s := range d.StaleSets {
		in[s.ID.Family] = true
	}
	for _, c := range d.Chains {
		in[c.Family] = true
	}
	for _, c := range d.StaleChains {
		in[c.Family] = true
	}
	for _, list := range [][]nftables.Element{d.Delete, d.Add} {
		for i := range list {
			in[list[i].Set.Family] = true
		}
	}
	var out []service.Family
	for _, f := range service.Families() {
		if in[f] {
			out = append(out, f)
		}
	}
	return out
}
