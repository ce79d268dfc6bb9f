package proxier

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/conntrack"
	"github.com/nftproxy/nftproxy/proxier/nft"
)

var (
	soakRounds = flag.Int("soak", 100, "rounds of TestSoak, of up to 60 object changes each")
	soakSeed   = flag.Uint64("soak-seed", 0, "seed of TestSoak; 0 is any")
)

// TestSoak changes objects at random, in rounds of one sync each. After each round the
// kernel must hold what a proxier makes of the objects that starts afresh, and
// nothing must be left over. Now and then somebody damages the tables, which must be
// noticed and repaired.
func TestSoak(t *testing.T) {
	seed := *soakSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-soak-seed=%d", seed)
	ns := newNamespace(t)
	conn, err := nft.Dial(nft.Options{NetNS: ns.FD()})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := caseConfig(t, "", t.TempDir())
	p, s := newStandalone(t, c, conn)
	s.flows = conntrack.Cleaner{NetNS: ns.FD()}
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
			w.damage(t, ns, conn, s)
		}
		if err := s.sync(); err != nil && !damaged {
			t.Fatalf("round %d: %v", round, err)
		}
		if s.resync {
			if err := s.sync(); err != nil {
				t.Fatalf("round %d, after damage: %v", round, err)
			}
		}
		if s.untidy {
			t.Fatalf("round %d: something is left over", round)
		}
		w.checkSync(t, s, c, conn)
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
		if w.chance(5) {
			nftIn(t, ns, "", "list", "ruleset")
		}
	}
	t.Logf("%d changes of objects in %d rounds, damaged %d times, in %v; at the end %d objects, %d frontends",
		changes, *soakRounds, damages, time.Since(start).Round(time.Millisecond), len(w.objects), s.ruleset.Len())
}

// damage changes the tables as somebody else could, and has the syncer look.
func (w *world) damage(t *testing.T, ns *lab.Namespace, conn *nft.Conn, s *syncer) {
	t.Helper()
	// The first look after a start sees a generation that it does not know.
	if err := s.look(); err != nil {
		t.Fatal(err)
	}
	s.resync, s.suspicious = false, false
	family := oneOf(w, "ip", "ip6")
	set := oneOf(w, "map %s nftproxy services", "map %s nftproxy endpoints", "map %s nftproxy local-endpoints", "set %s nftproxy cluster-ips",
		"set %s nftproxy hairpin", "set %s nftproxy service-cidrs", "set %s nftproxy allowed-sources", "set %s nftproxy firewalled")
	damage := oneOf(w,
		"flush ruleset",
		fmt.Sprintf("delete table %s nftproxy", family),
		fmt.Sprintf("flush table %s nftproxy", family),
		fmt.Sprintf("flush "+set, family),
		fmt.Sprintf("insert rule %s nftproxy %s accept", family, oneOf(w, "services", "no-endpoints", "nat-prerouting", "nat-postrouting")),
		fmt.Sprintf("flush chain %s nftproxy %s", family, oneOf(w, "services", "nat-output")),
		fmt.Sprintf("add set %s nftproxy other { type mark; }", family),
		fmt.Sprintf("add chain %s nftproxy other; add rule %s nftproxy other jump services", family, family),
		"add table ip other; add chain ip other x; delete table ip other",
		fmt.Sprintf("add element %s nftproxy cluster-ips { %s }", family, map[string]string{"ip": "10.99.0.1", "ip6": "fd00::99"}[family]),
	)
	before, err := conn.Generation()
	if err != nil {
		t.Fatal(err)
	}
	nftIn(t, ns, strings.ReplaceAll(damage, "; ", "\n")+"\n", "-f", "-")
	after, err := conn.Generation()
	if err := errors.Join(err, s.look()); err != nil {
		t.Fatal(err)
	}
	if after != before && !s.resync && !s.suspicious { // to flush an empty set is nothing
		t.Fatalf("not noticed: %s", damage)
	}
	s.resync = true // as after comparePeriod, for what only reading it all can tell
}
