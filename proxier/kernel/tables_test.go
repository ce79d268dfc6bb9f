package kernel

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/nftables"
)

func TestListTables(t *testing.T) {
	c := testConn(t)
	mustCommit(t, c, func(b *netlink.Batch) {
		putTable(b)
		putChain(b)
		for _, family := range []uint8{unix.NFPROTO_INET, unix.NFPROTO_ARP} {
			b.Message(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, family)
			b.String(unix.NFTA_TABLE_NAME, "filter")
		}
		b.Message(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, unix.NFPROTO_INET)
		b.String(unix.NFTA_CHAIN_TABLE, "filter")
		b.String(unix.NFTA_CHAIN_NAME, "forward")
		hook := b.Nest(unix.NFTA_CHAIN_HOOK)
		b.U32(unix.NFTA_HOOK_HOOKNUM, unix.NF_INET_FORWARD)
		b.U32(unix.NFTA_HOOK_PRIORITY, 0xfffffff6) // -10
		b.EndNest(hook)
		b.U32(unix.NFTA_CHAIN_POLICY, 0) // NF_DROP
		b.String(unix.NFTA_CHAIN_TYPE, "filter")
	})
	got, err := ListTables(c.Conn)
	if err != nil {
		t.Fatal(err)
	}
	want := []Table{
		{Family: "ip", Name: "another", Chains: []TableChain{{Name: "chain"}}},
		{Family: "inet", Name: "filter", Chains: []TableChain{
			{Name: "forward", Hook: &nftables.Hook{Name: "forward", Priority: -10}, Drop: true},
		}},
		{Family: "arp", Name: "filter"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
