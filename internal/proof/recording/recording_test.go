package recording

import (
	"bytes"
	stdcmp "cmp"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/netlink"
)

func TestMain(m *testing.M) { lab.Main(m) }

// script has everything that a recording keeps, and a table that it leaves out.
const script = `
add table ip kube-proxy
add table ip6 kube-proxy
add table ip other
add chain ip other first
add chain ip kube-proxy zeta
add chain ip kube-proxy alpha { type nat hook prerouting priority -100 ; }
add set ip kube-proxy seen { type ipv4_addr ; flags dynamic,timeout ; timeout 10m ; }
add map ip6 kube-proxy ports { type inet_service : verdict ; }
add chain ip6 kube-proxy end
add element ip6 kube-proxy ports { 80 : goto end, 443 : drop, 8080 : accept }
add rule ip kube-proxy alpha ip daddr { 10.0.0.0/8, 192.0.2.1 } goto zeta
add rule ip kube-proxy alpha ip daddr 192.0.2.2 drop
add rule ip kube-proxy zeta update @seen { ip saddr }
`

// TestRecording checks that a recording answers a dump as the kernel did, and that the same tables have the
// same recording after another history.
func TestRecording(t *testing.T) {
	dir := t.TempDir()
	before, after := filepath.Join(dir, "before"), filepath.Join(dir, "after")
	ns := lab.TestNamespace(t)
	run := func(script string) {
		t.Helper()
		if out, err := ns.Nft(script); err != nil {
			t.Fatalf("nft: %v\n%s", err, out)
		}
	}
	run(script)
	conn := dial(t, ns)
	if err := Write(before, "kube-proxy", conn); err != nil {
		t.Fatal(err)
	}
	r, err := Open(before)
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range []uint8{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6} {
		for _, d := range dumps() {
			if d.request == unix.NFT_MSG_GETSETELEM {
				continue
			}
			want := answers(t, conn.Dump, d, family)
			got := answers(t, r.Dump, d, family)
			if len(got) == 0 && d.request != unix.NFT_MSG_GETRULE || !cmp.Equal(want, got) {
				t.Errorf("request %d of family %d (-kernel +recording):\n%s",
					d.request, family, cmp.Diff(want, got))
			}
		}
	}
	want, got := elements(t, conn.DumpElements), elements(t, r.DumpElements)
	if len(got) != 3 || !cmp.Equal(want, got) {
		t.Errorf("elements (-kernel +recording):\n%s", cmp.Diff(want, got))
	}

	run("flush ruleset\nadd table ip first\n" + script)
	if err := Write(after, "kube-proxy", conn); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(read(t, before), read(t, after)); diff != "" {
		t.Errorf("the same tables have another recording (-before +after):\n%s", diff)
	}
	if err := Write(after, "none", conn); err == nil {
		t.Error("a table that does not exist was recorded")
	}
}

type dumpFunc func(request uint16, family uint8, table, name string, each func([]byte) error) error

// answers returns what a recording keeps of the answers to a dump for the table kube-proxy, in the order of
// names.
func answers(t *testing.T, ask dumpFunc, d dump, family uint8) (out [][]byte) {
	t.Helper()
	err := ask(d.request, family, "", "", func(attributes []byte) error {
		if (message{attributes: attributes}).text(1) == "kube-proxy" {
			out = append(out, without(attributes, d.left))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortStableFunc(out, func(a, b []byte) int {
		return stdcmp.Compare(message{attributes: a}.text(d.name), message{attributes: b}.text(d.name))
	})
	return out
}

func elements(t *testing.T, ask func(uint8, string, string, func([]byte) error) error) (out [][]byte) {
	t.Helper()
	err := ask(unix.NFPROTO_IPV6, "kube-proxy", "ports", func(element []byte) error {
		out = append(out, bytes.Clone(element))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(out, bytes.Compare)
	return out
}

func dial(t *testing.T, ns *lab.Namespace) (conn *netlink.Conn) {
	t.Helper()
	err := ns.Do(func() (err error) {
		conn, err = netlink.Dial()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
