package proxier

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/internal/configtest"
	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/rules"
)

var (
	soakRounds = flag.Int("soak", 100, "rounds of TestSoak, of up to 60 object changes each")
	soakSeed   = flag.Uint64("soak-seed", 0, "seed of TestSoak; 0 is any")
)

// TestSoak changes objects at random, in rounds of one sync each. After each round the kernel must hold the
// ruleset that a new Proxier makes from the objects, and nothing may be left over. Now and then another
// process damages the tables; the reconciler must notice and repair that.
func TestSoak(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	seed := *soakSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-soak-seed=%d", seed)
	ns := ownNamespace(t)
	conn := dial(t, ns, kernel.Options{})
	c := configtest.Case(t, "", t.TempDir())
	p, r := newStandalone(t, c, checkedDrift{conn, t})
	w := newWorld(seed, 80)
	changes, damages, start := 0, 0, time.Now()
	for round := range *soakRounds {
		for range 1 + w.IntN(60) {
			w.change(p)
			changes++
		}
		damaged := round > 0 && w.chance(10)
		if damaged {
			damages++
			w.damage(t, ns, conn, r)
		}
		if err := syncWhole(t, r); err != nil && !damaged {
			t.Fatalf("round %d: %v", round, err)
		}
		if r.due != none {
			if err := syncWhole(t, r); err != nil {
				t.Fatalf("round %d, after damage: %v", round, err)
			}
		}
		if r.cleanup.due != nil {
			t.Fatalf("round %d: something is left over", round)
		}
		w.checkSync(t, r, c, conn)
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
		if w.chance(5) {
			nftIn(t, ns, "", "list", "ruleset")
		}
	}
	t.Logf("%d changes of objects in %d rounds, damaged %d times, in %v; at the end %d objects, %d frontends",
		changes, *soakRounds, damages, time.Since(start).Round(time.Millisecond),
		len(w.objects), r.builder.Ruleset().Len())
}

// checkedDrift is the kernel, where a check for drift must not fail.
type checkedDrift struct {
	*kernel.Conn
	t *testing.T
}

func (c checkedDrift) CheckDrift(want *rules.Ruleset) (kernel.Drift, error) {
	found, err := c.Conn.CheckDrift(want)
	if err != nil {
		c.t.Errorf("check for drift: %v", err)
	}
	return found, err
}

// damage changes the tables as another process could, and lets the reconciler check for drift.
func (w *world) damage(t *testing.T, ns *lab.Namespace, conn *kernel.Conn, r *reconciler) {
	t.Helper()
	r.checkDrift() // the first check after a start finds a generation that it does not know
	r.due, r.compare = none, compareTimer{}
	family := oneOf(w, "ip", "ip6")
	set := oneOf(w, "map %s nftproxy services", "map %s nftproxy endpoints",
		"map %s nftproxy local-endpoints", "set %s nftproxy cluster-ips", "set %s nftproxy hairpin",
		"set %s nftproxy service-cidrs", "set %s nftproxy allowed-sources", "set %s nftproxy firewalled")
	damage := oneOf(w,
		"flush ruleset",
		fmt.Sprintf("delete table %s nftproxy", family),
		fmt.Sprintf("flush table %s nftproxy", family),
		fmt.Sprintf("flush "+set, family),
		fmt.Sprintf("insert rule %s nftproxy %s accept", family,
			oneOf(w, "services", "no-endpoints", "nat-prerouting", "nat-postrouting")),
		fmt.Sprintf("flush chain %s nftproxy %s", family, oneOf(w, "services", "nat-output")),
		fmt.Sprintf("add set %s nftproxy other { type mark; }", family),
		fmt.Sprintf("add chain %s nftproxy other; add rule %s nftproxy other jump services", family, family),
		"add table ip other; add chain ip other x; delete table ip other",
		fmt.Sprintf("add element %s nftproxy cluster-ips { %s }", family,
			map[string]string{"ip": "10.99.0.1", "ip6": "fd00::99"}[family]),
	)
	before, err := conn.Generation()
	if err != nil {
		t.Fatal(err)
	}
	nftIn(t, ns, strings.ReplaceAll(damage, "; ", "\n")+"\n", "-f", "-")
	after, err := conn.Generation()
	if err != nil {
		t.Fatal(err)
	}
	r.checkDrift()
	if after != before && r.due == none && !r.compare.suspected { // flushing an empty set changes nothing
		t.Fatalf("not noticed: %s", damage)
	}
	r.require(suspicion) // as after comparePeriod, for damage that only a full sync finds
}
