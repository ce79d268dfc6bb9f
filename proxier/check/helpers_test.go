package check

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/nftproxy/nftproxy/internal/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// migrationDir has rulesets of kube-proxy and the objects that they are for.
const migrationDir = "../../testdata/migration"

func migrationFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(migrationDir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func newLab(t *testing.T, o lab.Options) *lab.Lab {
	t.Helper()
	l, err := lab.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
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
