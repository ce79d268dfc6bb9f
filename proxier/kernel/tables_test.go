package kernel

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/netlink"
)

const otherTables = `
table ip nat {
	chain POSTROUTING { type nat hook postrouting priority 100; }
	chain FLANNEL-POSTRTG { }
}
table inet t { chain c { type filter hook forward priority -5; policy drop; }; }
table bridge t { }
`

func TestListTables(t *testing.T) {
	ns, err := lab.NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if _, err := ns.Nft(otherTables); err != nil {
		t.Fatal(err)
	}
	var tables []Table
	err = ns.Do(func() error {
		conn, err := netlink.Dial()
		if err != nil {
			return err
		}
		defer conn.Close()
		tables, err = ListTables(conn)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, table := range tables {
		got = append(got, table.Family+" "+table.Name)
		for _, chain := range table.Chains {
			line := "  " + chain.Name
			if chain.Hook != nil {
				line += " " + chain.Hook.Name
			}
			if chain.Drop {
				line += " drop"
			}
			got = append(got, line)
		}
	}
	want := []string{
		"ip nat", "  POSTROUTING postrouting", "  FLANNEL-POSTRTG",
		"inet t", "  c forward drop",
		"bridge t",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tables (-want +got):\n%s", diff)
	}
}
