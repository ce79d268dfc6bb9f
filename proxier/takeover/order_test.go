package takeover

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// TestNewestChainTranslates checks the fact about the kernel that the reports about a second proxy state: of
// two nat chains with the same hook and priority the kernel calls the one that was added last first, and only
// that one translates a connection. The order of the tables and of the rules does not matter.
func TestNewestChainTranslates(t *testing.T) {
	for _, hook := range []struct{ name, client string }{{"prerouting", "client"}, {"output", "node"}} {
		for _, family := range []struct{ name, node, podA, podB string }{
			{"ip", "192.0.2.1:30080", "10.244.1.11:8080", "10.244.1.12:8080"},
			{"ip6", "[2001:db8::1]:30080", "[fd00:10:244:1::11]:8080", "[fd00:10:244:1::12]:8080"},
		} {
			t.Run(hook.name+" "+family.name, func(t *testing.T) {
				l := newLab(t, family.podA, family.podB)
				nft := func(format string, args ...any) {
					t.Helper()
					nftIn(t, l.Node(), fmt.Sprintf(format, args...), "-f", "-")
				}
				addChain := func(table string) {
					t.Helper()
					nft("add chain %s %s c { type nat hook %s priority -100; }",
						family.name, table, hook.name)
				}
				addRule := func(table, pod string) {
					t.Helper()
					nft("add rule %s %s c tcp dport 30080 dnat to %s", family.name, table, pod)
				}
				checkAnswer := func(want string) {
					t.Helper()
					for range 3 {
						got := l.Request(hook.client, "tcp", netip.MustParseAddrPort(family.node))
						if got.By != want {
							t.Errorf("got an answer from %q (%v), want %s", got.By, got.Err, want)
						}
					}
				}
				nft("table %[1]s b { }; table %[1]s a { }", family.name)
				addChain("a")
				addChain("b")
				addRule("b", family.podB)
				addRule("a", family.podA)
				checkAnswer("pod-b")
				// The other proxy comes back: now its chain is the newer one.
				nft("flush chain %[1]s a c; delete chain %[1]s a c", family.name)
				checkAnswer("pod-b")
				addChain("a")
				addRule("a", family.podA)
				checkAnswer("pod-a")
			})
		}
	}
}

// newLab returns a lab in which these addresses answer.
func newLab(t *testing.T, servers ...string) *lab.Lab {
	t.Helper()
	l, err := lab.New(lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for _, addr := range servers {
		if err := l.Serve(netip.MustParseAddrPort(addr), "tcp"); err != nil {
			t.Fatal(err)
		}
	}
	return l
}
