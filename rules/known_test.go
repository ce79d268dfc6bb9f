package rules

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/rules/service"
)

// The name of every chain gives the chain again, and other names give none.
func TestKnownChain(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		s := Shape{Kind: ShapeKind(random.IntN(int(shapeAny) + 1))}
		if s.Kind != ShapeReject && s.Kind != ShapeDrop {
			s.N = 1 + random.IntN(9)
			if s.Kind == ShapeLocal {
				s.Locals = random.IntN(3)
			}
			if s.Kind == shapeAny || random.IntN(2) == 0 {
				s.Timeout = time.Duration(1+random.IntN(86400)) * time.Second
			}
		}
		got, ok := KnownChain(Config{MasqueradeMark: 1 << 14}, service.IPv4, s.ChainName())
		if diff := cmp.Diff(s.chain(service.IPv4, Config{MasqueradeMark: 1 << 14}), got); !ok || diff != "" {
			t.Fatalf("%+v: known %t (-want +got):\n%s", s, ok, diff)
		}
	}
	for _, c := range baseChains(service.IPv6, Config{}) {
		if got, ok := KnownChain(Config{}, service.IPv6, c.Name); !ok || cmp.Diff(c, got) != "" {
			t.Errorf("%s: known %t", c.Name, ok)
		}
	}
	for _, name := range []string{"", "cluster-", "cluster-03", "sticky-cluster-3", "local-3", "any-3",
		"foreign-3", "cluster-99999999999999999999", "cluster-1-of-3"} {
		if _, ok := KnownChain(Config{}, service.IPv4, name); ok {
			t.Errorf("%q is known", name)
		}
	}
}
