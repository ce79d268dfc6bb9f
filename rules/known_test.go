package rules

import (
	"math/rand/v2"
	"net/netip"
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
		in := tableShape{family: service.IPv4, shape: s}
		if s.N > 0 && s.Timeout == 0 {
			in.shape.Scheduler = service.Schedulers()[random.IntN(4)]
		}
		if part := in.shape.Scheduler == service.RoundRobin && random.IntN(2) == 0; part {
			in.shape.N, in.shape.Locals = 0, 0
		} else if in.shape.Scheduler == service.RoundRobin {
			in.owner = service.Frontend{Protocol: service.SCTP, Port: uint16(random.IntN(1 << 16)),
				Addr: netip.AddrFrom4([4]byte{10, 96, 0, byte(random.IntN(256))})}
			if random.IntN(2) == 0 {
				in.family, in.owner.Addr = service.IPv6, netip.MustParseAddr("2001:db8:0:1::2:0")
			}
		}
		got, ok := KnownChain(Config{MasqueradeMark: 1 << 14}, in.family, in.chainName())
		if diff := cmp.Diff(in.chain(Config{MasqueradeMark: 1 << 14}), got); !ok || diff != "" {
			t.Fatalf("%+v: known %t (-want +got):\n%s", in, ok, diff)
		}
	}
	for _, c := range baseChains(service.IPv6, Config{}) {
		if got, ok := KnownChain(Config{}, service.IPv6, c.Name); !ok || cmp.Diff(c, got) != "" {
			t.Errorf("%s: known %t", c.Name, ok)
		}
	}
	for _, name := range []string{"", "cluster-", "cluster-03", "sticky-cluster-3", "local-3", "any-3",
		"foreign-3", "cluster-99999999999999999999", "cluster-1-of-3",
		"rr-cluster-3", "rr-cluster-3-10.96.0.10-tcp", "rr-cluster-3-10.96.0.010-tcp-80", "mh-cluster-3-4",
		"rr-cluster-3-10.96.0.10-udp-080", "random-cluster-3", "mh-any-3", "sticky-mh-cluster-3-4"} {
		if _, ok := KnownChain(Config{}, service.IPv4, name); ok {
			t.Errorf("%q is known", name)
		}
	}
}
