package kernel

import (
	"testing"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/rules"
)

// A transaction that deletes as many frontends as the receive buffer holds echoes reports each once. One that
// deletes more reports none, and is committed all the same.
func TestCountedIsBounded(t *testing.T) {
	ns := lab.TestNamespace(t)
	reported := map[string]int{}
	c := testDial(t, ns, Options{Counted: func(n Connections) { reported[n.Port]++ }})
	counters := rules.Counters{Services: true}
	for _, services := range []int{c.EchoRoom(), c.EchoRoom() + 1} {
		mustApply(t, c, countedServices(services, counters))
		clear(reported)
		mustApply(t, c, countedServices(0, counters))
		want := services
		if services > c.EchoRoom() {
			want = 0
		}
		if len(reported) != want {
			t.Errorf("%d frontends deleted, of %d is the last counter known, want %d", services, len(reported), want)
		}
		for port, n := range reported {
			if n != 1 {
				t.Fatalf("%s is reported %d times", port, n)
			}
		}
	}
}
