package netlink

import (
	"os"
	"testing"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// TestMain stays in the initial user namespace when it runs as root: there the send buffer, and so a batch,
// can have any size. Other users get namespaces of their own.
func TestMain(m *testing.M) {
	if os.Geteuid() == 0 {
		os.Exit(m.Run())
	}
	lab.Main(m)
}

// testConn returns a Conn in a network namespace of its own. A test that loses the socket must make the next
// call in that namespace, because this call opens a new one.
func testConn(t testing.TB) *Conn {
	t.Helper()
	return testDial(t, lab.TestNamespace(t))
}

// testDial returns a Conn in the namespace.
func testDial(t testing.TB, ns *lab.Namespace) (c *Conn) {
	t.Helper()
	err := ns.Do(func() (err error) {
		c, err = Dial()
		return err
	})
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
