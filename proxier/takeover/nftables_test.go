package takeover

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// foreign has rules of other programs, in the tables that kube-proxy uses and in tables of their own.
const foreign = `
table ip filter {
	chain DOCKER-USER { counter return; }
	chain KUBE-ROUTER-FORWARD { counter; }
	chain FORWARD { counter jump DOCKER-USER; ip saddr 10.9.9.9 drop; jump KUBE-ROUTER-FORWARD; }
}
table ip nat {
	chain POSTROUTING { ip saddr 172.17.0.0/16 masquerade; }
}
table inet firewalld { chain filter_FORWARD { type filter hook forward priority 10; policy accept; }; }
table ip nftproxy { chain services { }; }
`

// portmap is a chain of a CNI plugin that jumps to one of kube-proxy's.
const portmap = `table ip nat { chain CNI-HOSTPORT-SETMARK { counter jump KUBE-MARK-MASQ; }; }`

// removed names the chains of iptables.nft that are removed: how many of the filter and the nat table of
// IPv4; the numbers of the others are always the same.
func removed(filter, nat int) string {
	return fmt.Sprintf("chains KUBE-* of table ip mangle (1), chains KUBE-* of table ip filter (%d), "+
		"chains KUBE-* of table ip nat (%d), chains KUBE-* of table ip6 mangle (1), "+
		"chains KUBE-* of table ip6 filter (6), chains KUBE-* of table ip6 nat (13)", filter, nat)
}

func TestRemoveKubeProxy(t *testing.T) {
	for name, test := range map[string]struct {
		file, more string
		want       string   // what is removed
		kept       []string // chains of kube-proxy that stay
	}{
		"nftables mode": {file: "nftables.nft", want: "table ip kube-proxy, table ip6 kube-proxy"},
		"iptables mode": {file: "iptables.nft", want: removed(6, 13)},
		"a CNI plugin's chain": {file: "iptables.nft", more: portmap, want: removed(6, 12),
			kept: []string{"ip nat KUBE-MARK-MASQ: chain CNI-HOSTPORT-SETMARK jumps to it"}},
		"a chain that leads to others": {file: "iptables.nft", want: removed(6, 8),
			more: `table ip nat { chain MINE { jump KUBE-EXT-LOLE4ISW44XBNF3G; }; }`,
			kept: []string{
				"ip nat KUBE-MARK-MASQ: chain KUBE-EXT-LOLE4ISW44XBNF3G jumps to it",
				"ip nat KUBE-EXT-LOLE4ISW44XBNF3G: chain MINE jumps to it",
				"ip nat KUBE-SVC-LOLE4ISW44XBNF3G: chain KUBE-EXT-LOLE4ISW44XBNF3G jumps to it",
				"ip nat KUBE-SEP-QBMWJ7Q236QVVXD6: chain KUBE-SVC-LOLE4ISW44XBNF3G jumps to it",
				"ip nat KUBE-SEP-IDQDQQO4UFHKBJMQ: chain KUBE-SVC-LOLE4ISW44XBNF3G jumps to it",
			}},
		"forwarded packets are dropped": {file: "iptables.nft", want: removed(5, 13),
			more: "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }",
			kept: []string{"ip filter KUBE-FORWARD: the policy of chain FORWARD is drop"}},
	} {
		t.Run(name, func(t *testing.T) {
			ns := lab.TestNamespace(t)
			file := migrationFile(t, test.file)
			nftIn(t, ns, file+foreign+test.more, "-f", "-")
			c := dial(t, ns)
			before := generation(t, c)
			found, err := Remove(c)
			if err != nil {
				t.Fatal(err)
			}
			if got := found.String(); got != test.want {
				t.Errorf("removed %s\nwant %s", got, test.want)
			}
			var kept []string
			for _, k := range found.Kept {
				kept = append(kept, k.Table+" "+k.Name+": "+k.Why)
			}
			if diff := cmp.Diff(test.kept, kept); diff != "" {
				t.Errorf("kept (-want +got):\n%s", diff)
			}
			if after := generation(t, c); after != before+1 {
				t.Errorf("%d transactions, want 1", after-before)
			}
			if again, err := Find(c); err != nil || again.Any() {
				t.Errorf("not removed: %v, %v", again, err)
			}
			want := withoutKubeProxy(t, file, foreign+test.more, test.kept)
			got := normalListing(nftIn(t, ns, "", "-s", "list", "ruleset"))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("remaining ruleset (-want +got):\n%s", diff)
			}
		})
	}
}

// withoutKubeProxy returns the ruleset that must remain: the listing of the rules without the lines that name
// a chain of kube-proxy which is not kept.
func withoutKubeProxy(t *testing.T, file, more string, kept []string) string {
	t.Helper()
	ns := lab.TestNamespace(t)
	keep := func(line string) bool {
		return slices.ContainsFunc(kept, func(k string) bool {
			return strings.HasSuffix(line, " "+strings.TrimSuffix(strings.Fields(k)[2], ":"))
		})
	}
	nftIn(t, ns, file+more, "-f", "-")
	listing := nftIn(t, ns, "", "-s", "list", "ruleset")
	var left []string
	for _, table := range strings.Split(listing, "\n}\n") {
		if strings.Contains(table, " kube-proxy {") {
			continue
		}
		ip := strings.HasPrefix(table, "table ip ")
		var lines []string
		inside := false // a chain that is removed
		for line := range strings.Lines(table) {
			name := strings.TrimSuffix(strings.TrimSpace(line), " {")
			words := strings.Fields(name)
			last := ""
			if len(words) > 0 {
				last = words[len(words)-1]
			}
			removed := isKubeProxyChain(last) && !(ip && keep(name))
			if strings.HasPrefix(line, "\tchain ") {
				inside = removed
			}
			if !inside && !removed {
				lines = append(lines, line)
			}
		}
		left = append(left, strings.Join(lines, ""))
	}
	return normalListing(strings.Join(left, "\n}\n"))
}

// normalListing removes blank lines and comments.
func normalListing(listing string) string {
	var b strings.Builder
	for line := range strings.Lines(listing) {
		if strings.TrimSpace(line) != "" && !strings.HasPrefix(line, "#") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// TestRemoveKubeProxyWritesNothing writes nothing on a node without rules of kube-proxy.
func TestRemoveKubeProxyWritesNothing(t *testing.T) {
	ns := lab.TestNamespace(t)
	nftIn(t, ns, `
table ip filter { chain KUBE-FIREWALL { }; chain KUBE-ROUTER-INPUT { }; chain KUBE-KUBELET-CANARY { }; }
table inet kube-proxy { }
`, "-f", "-")
	c := dial(t, ns)
	before := generation(t, c)
	found, err := Remove(c)
	if err != nil || found.Any() || len(found.Kept) > 0 {
		t.Errorf("found %+v, %v", found, err)
	}
	if after := generation(t, c); after != before {
		t.Errorf("the generation moved from %d to %d", before, after)
	}
}
