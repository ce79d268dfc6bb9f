package netlink

import (
	"os"
	"testing"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// TestMain stays in the initial user namespace as root, where a batch may be as
// large as it needs to be; anybody else gets namespaces of their own.
func TestMain(m *testing.M) {
	if os.Geteuid() == 0 {
		os.Exit(m.Run())
	}
	lab.Main(m)
}

// testNetNS makes a network namespace and returns its file descriptor, which lives as long as the test.
func testNetNS(t testing.TB) int {
	t.Helper()
	ns, err := lab.NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns.FD()
}

// testConn returns a Conn in a network namespace of its own.
func testConn(t testing.TB) *Conn {
	t.Helper()
	return testDial(t, testNetNS(t))
}

func testDial(t testing.TB, netns int) *Conn {
	t.Helper()
	c, err := Dial(Options{NetNS: netns})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}
