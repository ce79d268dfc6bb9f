package takeover

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/internal/lab"
)

const migrationDir = "../../testdata/migration"

// foreign is what others have beside kube-proxy, in the same tables and beside them.
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

// portmap is a chain of a CNI plugin that uses one of kube-proxy's.
const portmap = `table ip nat { chain CNI-HOSTPORT-SETMARK { counter jump KUBE-MARK-MASQ; }; }`

func TestRemoveKubeProxy(t *testing.T) {
	for name, test := range map[string]struct {
		file, more string
		want       string   // what is removed
		kept       []string // chains of kube-proxy that stay
	}{
		"nftables mode": {file: "nftables.nft", want: "table ip kube-proxy, table ip6 kube-proxy"},
		"iptables mode": {file: "iptables.nft", want: "chains KUBE-* of table ip mangle (1), chains KUBE-* of table ip filter (6), chains KUBE-* of table ip nat (13), " +
			"chains KUBE-* of table ip6 mangle (1), chains KUBE-* of table ip6 filter (6), chains KUBE-* of table ip6 nat (13)"},
		"a CNI plugin's chain": {file: "iptables.nft", more: portmap,
			want: "chains KUBE-* of table ip mangle (1), chains KUBE-* of table ip filter (6), chains KUBE-* of table ip nat (12), " +
				"chains KUBE-* of table ip6 mangle (1), chains KUBE-* of table ip6 filter (6), chains KUBE-* of table ip6 nat (13)",
			kept: []string{"ip nat KUBE-MARK-MASQ: chain CNI-HOSTPORT-SETMARK jumps to it"}},
		"a chain with others behind it": {file: "iptables.nft", more: `table ip nat { chain MINE { jump KUBE-EXT-LOLE4ISW44XBNF3G; }; }`,
			want: "chains KUBE-* of table ip mangle (1), chains KUBE-* of table ip filter (6), chains KUBE-* of table ip nat (8), " +
				"chains KUBE-* of table ip6 mangle (1), chains KUBE-* of table ip6 filter (6), chains KUBE-* of table ip6 nat (13)",
			kept: []string{
				"ip nat KUBE-MARK-MASQ: chain KUBE-EXT-LOLE4ISW44XBNF3G jumps to it",
				"ip nat KUBE-EXT-LOLE4ISW44XBNF3G: chain MINE jumps to it",
				"ip nat KUBE-SVC-LOLE4ISW44XBNF3G: chain KUBE-EXT-LOLE4ISW44XBNF3G jumps to it",
				"ip nat KUBE-SEP-QBMWJ7Q236QVVXD6: chain KUBE-SVC-LOLE4ISW44XBNF3G jumps to it",
				"ip nat KUBE-SEP-IDQDQQO4UFHKBJMQ: chain KUBE-SVC-LOLE4ISW44XBNF3G jumps to it",
			}},
		"forwarding is dropped": {file: "iptables.nft", more: "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }",
			want: "chains KUBE-* of table ip mangle (1), chains KUBE-* of table ip filter (5), chains KUBE-* of table ip nat (13), " +
				"chains KUBE-* of table ip6 mangle (1), chains KUBE-* of table ip6 filter (6), chains KUBE-* of table ip6 nat (13)",
			kept: []string{"ip filter KUBE-FORWARD: the policy of chain FORWARD is drop"}},
	} {
		t.Run(name, func(t *testing.T) {
			ns := testLabNamespace(t)
			file := readFile(t, filepath.Join(migrationDir, test.file))
			runNft(t, ns, file+foreign+test.more, "-f", "-")
			c := testDial(t, ns.FD())
			before := mustGeneration(t, c)
			found, err := c.RemoveKubeProxy()
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
			if after := mustGeneration(t, c); after != before+1 {
				t.Errorf("%d transactions, want 1", after-before)
			}
			if again, err := c.KubeProxy(); err != nil || again.Any() {
				t.Errorf("still there: %v, %v", again, err)
			}
			if diff := cmp.Diff(withoutKubeProxy(t, file, foreign+test.more, test.kept), normalListing(runNft(t, ns, "", "-s", "list", "ruleset"))); diff != "" {
				t.Errorf("what is left (-want +got):\n%s", diff)
			}
		})
	}
}

// withoutKubeProxy is what must be left: the listing of a namespace from whose rules
// those lines were taken out that name a chain of kube-proxy which is not kept.
func withoutKubeProxy(t *testing.T, file, more string, kept []string) string {
	t.Helper()
	ns := testLabNamespace(t)
	keep := func(line string) bool {
		return slices.ContainsFunc(kept, func(k string) bool {
			return strings.HasSuffix(line, " "+strings.TrimSuffix(strings.Fields(k)[2], ":"))
		})
	}
	runNft(t, ns, file+more, "-f", "-")
	listing := runNft(t, ns, "", "-s", "list", "ruleset")
	var left []string
	for _, table := range strings.Split(listing, "\n}\n") {
		if strings.Contains(table, " kube-proxy {") {
			continue
		}
		ip := strings.HasPrefix(table, "table ip ")
		var lines []string
		inside := false // a chain that goes
		for line := range strings.Lines(table) {
			name := strings.TrimSuffix(strings.TrimSpace(line), " {")
			words := strings.Fields(name)
			last := ""
			if len(words) > 0 {
				last = words[len(words)-1]
			}
			goes := IsKubeProxyChain(last) && !(ip && keep(name))
			if strings.HasPrefix(line, "\tchain ") {
				inside = goes
			}
			if !inside && !goes {
				lines = append(lines, line)
			}
		}
		left = append(left, strings.Join(lines, ""))
	}
	return normalListing(strings.Join(left, "\n}\n"))
}

// normalListing leaves out blank lines.
func normalListing(listing string) string {
	var b strings.Builder
	for line := range strings.Lines(listing) {
		if strings.TrimSpace(line) != "" && !strings.HasPrefix(line, "#") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// A transaction of somebody else between reading and removing makes it start over.
func TestRemoveKubeProxyIsStale(t *testing.T) {
	ns := testLabNamespace(t)
	runNft(t, ns, readFile(t, filepath.Join(migrationDir, "nftables.nft")), "-f", "-")
	c := testDial(t, ns.FD())
	_, b, err := c.findKubeProxy()
	if err != nil {
		t.Fatal(err)
	}
	runNft(t, ns, "", "add", "table", "ip", "other")
	if err := c.Commit(b); err == nil || !strings.Contains(err.Error(), ErrStale.Error()) {
		t.Errorf("got %v, want %v", err, ErrStale)
	}
	if _, err := c.RemoveKubeProxy(); err != nil {
		t.Error(err)
	}
}

// Where there is nothing of kube-proxy, nothing is written.
func TestRemoveKubeProxyWritesNothing(t *testing.T) {
	ns := testLabNamespace(t)
	runNft(t, ns, "table ip filter { chain KUBE-FIREWALL { }; chain KUBE-ROUTER-INPUT { }; chain KUBE-KUBELET-CANARY { }; }\ntable inet kube-proxy { }\n", "-f", "-")
	c := testDial(t, ns.FD())
	before := mustGeneration(t, c)
	found, err := c.RemoveKubeProxy()
	if err != nil || found.Any() || len(found.Kept) > 0 {
		t.Errorf("found %+v, %v", found, err)
	}
	if after := mustGeneration(t, c); after != before {
		t.Errorf("the generation moved from %d to %d", before, after)
	}
}

func TestTables(t *testing.T) {
	ns := testLabNamespace(t)
	runNft(t, ns, `
table ip nat { chain POSTROUTING { type nat hook postrouting priority 100; }; chain FLANNEL-POSTRTG { }; }
table inet t { chain c { type filter hook forward priority -5; policy drop; }; }
table bridge t { }
`, "-f", "-")
	tables, err := testDial(t, ns.FD()).Tables()
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
	want := []string{"ip nat", "  POSTROUTING postrouting", "  FLANNEL-POSTRTG", "inet t", "  c forward drop", "bridge t"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tables (-want +got):\n%s", diff)
	}
}

func testLabNamespace(t *testing.T) *lab.Namespace {
	t.Helper()
	ns, err := lab.NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// runNft runs the nft command in a namespace; these tests need it.
func runNft(t *testing.T, ns *lab.Namespace, stdin string, args ...string) string {
	t.Helper()
	var out []byte
	err := ns.Do(func() (err error) {
		cmd := exec.Command("nft", args...)
		cmd.Stdin = strings.NewReader(stdin)
		cmd.Stderr = os.Stderr
		out, err = cmd.Output()
		return err
	})
	if err != nil {
		t.Fatalf("nft %s: %v", strings.Join(args, " "), err)
	}
	return string(out)
}
