package trace

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/netlink"
)

// firewallRules are rules as nft writes them, and as they are read if that differs.
func firewallRules() [][2]string {
	return [][2]string{
		{"drop"}, {"accept"}, {"return"}, {"jump other"}, {"goto other"},
		{"tcp dport 1001 drop"},
		{"udp sport 53 accept"},
		{"meta l4proto tcp accept"},
		{"meta l4proto 47 accept"},
		{"ip protocol icmp accept"},
		{"ip saddr 192.0.2.1 drop"},
		{"ip daddr 10.96.0.0/16 drop"},
		{"ip daddr 10.96.0.0/12 drop"},
		{"ip saddr != 192.0.2.0/24 reject", "ip saddr != 192.0.2.0/24 reject with icmp 3"},
		{"ip6 daddr fd00:10:96::/112 drop"},
		{"ip6 saddr fd00::1 drop"},
		{`iifname "eth0" drop`},
		{`oifname "cali*" accept`},
		{"ct state established,related accept"},
		{"ct state invalid drop"},
		{"ct state new tcp dport 22 accept"},
		{"ct status dnat accept"},
		{"meta mark 0x4000 accept"},
		{"meta mark & 0x4000 == 0x4000 drop"},
		{"meta mark set 0x10"},
		{"meta mark set numgen random mod 4"},
		{"meta mark set numgen inc mod 3 offset 1"},
		{"tcp dport 1000-2000 drop", "tcp dport >= 1000 tcp dport <= 2000 drop"},
		{"tcp dport { 80, 443 } accept", "tcp dport { ... } accept"},
		{"tcp dport != @ports drop"},
		{"ip daddr . tcp dport @services accept"},
		{"ct state vmap { established : accept, invalid : drop }", "ct state vmap { ... }"},
		{"fib daddr type local accept"},
		{"limit rate 5/minute accept"},
		{`log prefix "dropped " drop`, "log drop"},
		{"counter drop"},
		{"reject with tcp reset", "meta l4proto tcp reject with tcp reset"},
		{"reject with icmp host-prohibited", "reject with icmp 10"},
		{"tcp flags syn drop", "meta l4proto tcp @th,104,8 & 0x02 != 0x00 drop"},
		{"quota over 10 mbytes drop", "quota drop"},
	}
}

// TestRuleText programs rules of firewalls with nft, and reads them from the kernel.
func TestRuleText(t *testing.T) {
	rules := firewallRules()
	var script strings.Builder
	script.WriteString("table inet fw {\n set ports { type inet_service; }\n" +
		"set services { type ipv4_addr . inet_service; }\n chain other { }\n chain c {\n")
	for _, r := range rules {
		script.WriteString(r[0] + "\n")
	}
	script.WriteString("}\n}\n")
	ns := lab.TestNamespace(t)
	if _, err := ns.Nft(script.String()); err != nil {
		t.Fatal(err)
	}
	var got []string
	err := ns.Do(func() error {
		c, err := netlink.Dial()
		if err != nil {
			return err
		}
		defer c.Close()
		return c.Dump(unix.NFT_MSG_GETRULE, unix.NFPROTO_INET, "fw", "c", func(attributes []byte) error {
			for typ, v := range netlink.Attrs(attributes) {
				if typ == unix.NFTA_RULE_EXPRESSIONS {
					got = append(got, rule(unix.NFPROTO_INET, v))
				}
			}
			return nil
		})
	})
	if err != nil || len(got) != len(rules) {
		t.Fatalf("%d rules, want %d: %v", len(got), len(rules), err)
	}
	for i, r := range rules {
		want := r[1]
		if want == "" {
			want = r[0]
		}
		if got[i] != want {
			t.Errorf("%s:\n got %s\nwant %s", r[0], got[i], want)
		}
	}
}

// TestExtensionText reads a rule of iptables-nft. The kernel needs modules of iptables to have one.
func TestExtensionText(t *testing.T) {
	var list []byte
	for _, e := range []expr.Any{
		&expr.Match{Name: "comment", Info: &xt.Unknown{1}}, &expr.Target{Name: "REJECT", Info: &xt.Unknown{2}},
	} {
		encoded, err := expr.Marshal(unix.NFPROTO_IPV4, e)
		if err != nil {
			t.Fatal(err)
		}
		list = binary.NativeEndian.AppendUint16(list, uint16(unix.SizeofNlAttr+len(encoded)))
		list = append(binary.NativeEndian.AppendUint16(list, unix.NFTA_LIST_ELEM), encoded...)
	}
	want := "xt match comment xt target REJECT"
	if got := rule(unix.NFPROTO_IPV4, list); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
