package takeover

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/netlink"
)

func TestMain(m *testing.M) { lab.Main(m) }

// inNamespace runs f on a thread in a network namespace of its own.
func inNamespace(t *testing.T, f func()) {
	t.Helper()
	if err := lab.TestNamespace(t).Do(func() error { f(); return nil }); err != nil {
		t.Fatal(err)
	}
}

// dial opens a connection into a namespace.
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

func generation(t *testing.T, c *netlink.Conn) uint32 {
	t.Helper()
	g, err := c.Generation()
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// nftIn runs the nft command in a namespace; these tests need it.
func nftIn(t *testing.T, ns *lab.Namespace, stdin string, args ...string) string {
	t.Helper()
	out, err := ns.Nft(stdin, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// migrationFile returns one of kube-proxy's rulesets.
func migrationFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../../testdata/migration", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
