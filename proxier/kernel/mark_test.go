package kernel

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/netlink"
)

const markingTables = `
table inet vpn {
	chain early { type filter hook prerouting priority mangle; meta mark set 0x1; }
	chain sets { type filter hook prerouting priority mangle; ip daddr 10.0.0.1 meta mark set 0x4001; }
	chain adds { type filter hook output priority mangle; meta mark set meta mark | 0x4000; }
	chain other { type filter hook forward priority 0; meta mark set meta mark | 0x100; }
	chain keeps { type filter hook forward priority 0; meta mark set meta mark & 0x4000; }
	chain clears { type filter hook forward priority 0; meta mark set 0x2; meta mark set 0x3; }
	chain jumped { meta mark set meta mark & 0xffffbfff; }
	chain restores { type filter hook prerouting priority 0; meta mark set ct mark; }
	chain late { type filter hook postrouting priority 200; meta mark set 0; }
	chain KUBE-MARK-MASQ { meta mark set meta mark | 0x4000; }
}
table ip kube-proxy { chain c { type filter hook forward priority 0; meta mark set 0x4000; }; }
table ip nftproxy { chain c { type filter hook forward priority 0; meta mark set 0x4000; }; }
table arp a { chain c { type filter hook input priority 0; meta mark set 0x4000; }; }
`

func TestMarkRules(t *testing.T) {
	ns := lab.TestNamespace(t)
	if _, err := ns.Nft(markingTables); err != nil {
		t.Fatal(err)
	}
	var got []MarkRule
	err := ns.Do(func() error {
		conn, err := netlink.Dial()
		if err != nil {
			return err
		}
		defer conn.Close()
		tables, err := ListTables(conn)
		if err == nil {
			got, err = MarkRules(conn, tables, 0x4000)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []MarkRule{
		{"inet", "vpn", "sets", true}, {"inet", "vpn", "adds", true},
		{"inet", "vpn", "clears", false}, {"inet", "vpn", "jumped", false},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// BenchmarkMarkRules reads 20,000 rules of another program.
func BenchmarkMarkRules(b *testing.B) {
	ns := lab.TestNamespace(b)
	var script strings.Builder
	script.WriteString("table ip filter {\nchain c {\ntype filter hook forward priority 0\n")
	for range 20_000 {
		script.WriteString("ip saddr 10.0.0.1 tcp dport 80 counter drop\n")
	}
	script.WriteString("}\n}\n")
	if _, err := ns.Nft(script.String()); err != nil {
		b.Fatal(err)
	}
	err := ns.Do(func() error {
		conn, err := netlink.Dial()
		if err != nil {
			return err
		}
		defer conn.Close()
		for b.Loop() {
			tables, err := ListTables(conn)
			if err != nil {
				return err
			}
			if _, err := MarkRules(conn, tables, 0x4000); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}
