package kernel

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// kernelWithout is a model of a kernel that lacks some features.
type kernelWithout struct {
	family    service.Family
	set       func(nftables.Set) bool
	hook      func(nftables.Hook) bool
	statement func(service.Family, nftables.Hook, nftables.Statement) bool
	checks    int
}

// check refuses features as a kernel does, including those that need a feature that it lacks.
func (k *kernelWithout) check(features []feature) (*netlink.Error, error) {
	k.checks++
	if slices.ContainsFunc(features, k.refuses) {
		return &netlink.Error{Errno: unix.EOPNOTSUPP}, nil
	}
	return nil, nil
}

func (k *kernelWithout) refuses(f feature) bool {
	set := func(s nftables.Set) bool { return s.Name != "" && k.set != nil && k.set(s) }
	return f.family == k.family || f.set != nil && set(*f.set) ||
		f.hook != nil && k.hook != nil && k.hook(*f.hook) ||
		slices.ContainsFunc(f.rule, func(s nftables.Statement) bool {
			name, _ := nftables.Uses(s)
			return set(f.sets[name]) || k.statement != nil && k.statement(f.family, *f.hook, s)
		})
}

// lackingKernel is a kernel and what the probe finds: the family and the end of the feature, and a part of
// what it needs.
type lackingKernel struct {
	kernel kernelWithout
	want   map[string]string
}

func lackingKernels() map[string]lackingKernel {
	const reject = "CONFIG_NFT_REJECT, CONFIG_NFT_REJECT_"
	both := func(feature, needs string) map[string]string {
		return map[string]string{"ip " + feature: needs, "ip6 " + feature: needs}
	}
	return map[string]lackingKernel{
		"IPv6": {
			kernelWithout{family: service.IPv6},
			map[string]string{"ip6 ": "CONFIG_NF_TABLES_IPV6 (module nf_tables)"},
		},
		"intervals of concatenations, Linux 5.5": {
			kernelWithout{set: noIntervals},
			both("set allowed-sources", "Linux 5.6"),
		},
		"nat in prerouting": {
			kernelWithout{hook: in("prerouting")},
			both("chain of type nat in prerouting", "CONFIG_NFT_NAT (modules nft_chain_nat, nft_nat)"),
		},
		"chains of type nat": {
			kernelWithout{hook: func(nftables.Hook) bool { return true }},
			both("chain of type nat in output", "CONFIG_NFT_NAT (modules nft_chain_nat, nft_nat)"),
		},
		"reject in prerouting, Linux 5.8": {kernelWithout{statement: noReject}, map[string]string{
			`ip "reject with tcp reset" in prerouting`:  reject + "IPV4 (module nft_reject_ipv4), Linux 5.9",
			`ip6 "reject with tcp reset" in prerouting`: reject + "IPV6 (module nft_reject_ipv6), Linux 5.9",
		}},
		"fib": {kernelWithout{statement: noFib}, map[string]string{
			`ip "fib daddr type != local" in output`:  "CONFIG_NFT_FIB_IPV4 (module nft_fib_ipv4)",
			`ip6 "fib daddr type != local" in output`: "CONFIG_NFT_FIB_IPV6 (module nft_fib_ipv6)",
		}},
		"numgen": {kernelWithout{statement: noNumgen}, merge(
			both(`numgen random mod 1 map @endpoints" in output`, "CONFIG_NFT_NUMGEN (module nft_numgen)"),
			both(`numgen inc mod 2 offset 1" in output`, "CONFIG_NFT_NUMGEN (module nft_numgen)"),
		)},
		"hash": {kernelWithout{statement: noHash}, map[string]string{
			`ip6 seed 0x6e667470 map @affinity" in output`:     "CONFIG_NFT_HASH (module nft_hash)",
			`ip6 seed 0x6e667470 : meta priority }" in output`: "CONFIG_NFT_HASH (module nft_hash)",
		}},
		"deletion by rules, Linux 5.3": {
			kernelWithout{statement: noForget},
			both(` : meta priority }" in output`, "Linux 5.5"),
		},
		"counters": {
			kernelWithout{set: func(s nftables.Set) bool { return s.Counter }},
			both("counter in map services", "CONFIG_NFT_COUNTER (module nft_counter)"),
		},
		"masquerade": {
			kernelWithout{statement: noMasquerade},
			both(`"masquerade fully-random" in postrouting`, "CONFIG_NFT_MASQ (module nft_masq)"),
		},
	}
}

// The probe names each feature that a kernel lacks, with the option, module or version that provides it. It
// does not name features that the kernel refuses only because they need the missing one.
func TestProbeNamesFeatures(t *testing.T) {
	for name, tt := range lackingKernels() {
		t.Run(name, func(t *testing.T) {
			missing := probeModel(t, &tt.kernel)
			if len(missing) != len(tt.want) {
				t.Errorf("missing %v, want %d", missing, len(tt.want))
			}
			for feature, needs := range tt.want {
				if !slices.ContainsFunc(missing, func(m Missing) bool { return names(m, feature, needs) }) {
					t.Errorf("missing %v, want %s, which needs %s", missing, feature, needs)
				}
			}
		})
	}
}

func merge(a, b map[string]string) map[string]string {
	maps.Copy(a, b)
	return a
}

// names reports whether m is the feature of the family: "FAMILY END OF THE FEATURE".
func names(m Missing, feature, needs string) bool {
	family, end, _ := strings.Cut(feature, " ")
	return m.Family.String() == family && strings.HasSuffix(m.Feature, end) &&
		strings.Contains(m.Needs, needs) && m.WholeFamily() == (end == "")
}

// probeModel probes a model and verifies each rule that it refuses: the model lacks its last statement and no
// other.
func probeModel(t *testing.T, k *kernelWithout) []Missing {
	t.Helper()
	p := prober{check: k.check}
	if err := p.probe(allFeatures()); err != nil {
		t.Fatal(err)
	}
	if k.checks > 250 {
		t.Errorf("%d checks, which take 15 ms each", k.checks)
	}
	for _, f := range p.refused {
		if f.rule == nil {
			continue
		}
		before, last := f, f
		before.rule, last.rule = f.rule[:len(f.rule)-1], f.rule[len(f.rule)-1:]
		if k.refuses(before) || !k.refuses(last) {
			t.Errorf("%s names the wrong statement of %q", f, f.rule.Text(f.family))
		}
	}
	return p.missing
}

// The probe names everything that a kernel lacks, each once, also when one rule needs several of them.
func TestProbeNamesAll(t *testing.T) {
	k := kernelWithout{set: noIntervals, hook: in("output")}
	k.statement = func(f service.Family, h nftables.Hook, s nftables.Statement) bool {
		for _, lacks := range []func(service.Family, nftables.Hook, nftables.Statement) bool{
			noFib, noMasquerade, noNumgen, noCt, noReject, noHash, noForget,
		} {
			if lacks(f, h, s) {
				return true
			}
		}
		return false
	}
	missing := probeModel(t, &k)
	for _, f := range service.Families() {
		for _, need := range []string{
			"Linux 5.6", "(modules nft_chain_nat, nft_nat)", "CONFIG_NFT_FIB_" + f.Option() + " ",
			"CONFIG_NFT_MASQ ", "CONFIG_NFT_NUMGEN ", "CONFIG_NFT_CT ",
			"CONFIG_NFT_REJECT_" + f.Option() + " ", "Linux 5.5",
		} {
			if !slices.ContainsFunc(missing, func(m Missing) bool {
				return m.Family == f && strings.Contains(m.Needs, need)
			}) {
				t.Errorf("missing %v, want %s for %s", missing, need, f)
			}
		}
	}
	seen := map[string]bool{}
	for _, m := range missing {
		if id := m.Family.String() + m.Needs; seen[id] {
			t.Errorf("%s needs %s twice", m.Family, m.Needs)
		} else {
			seen[id] = true
		}
	}
}

func noIntervals(s nftables.Set) bool {
	schema := s.ID.Schema()
	return schema.Interval && len(schema.Key) > 1
}

func in(name string) func(nftables.Hook) bool {
	return func(h nftables.Hook) bool { return h.Name == name }
}

func noFib(_ service.Family, _ nftables.Hook, s nftables.Statement) bool {
	_, is := s.(nftables.AddrLocal)
	return is
}

func noMasquerade(_ service.Family, _ nftables.Hook, s nftables.Statement) bool {
	_, is := s.(nftables.Masquerade)
	return is
}

func noNumgen(f service.Family, _ nftables.Hook, s nftables.Statement) bool {
	_, is := s.(nftables.TakeTurn)
	return is || slices.ContainsFunc(key(f, s), nftables.Field.IsRandom)
}

func noCt(f service.Family, _ nftables.Hook, s nftables.Statement) bool {
	_, is := s.(nftables.Translated)
	return is || slices.Contains(key(f, s), nftables.CtProto)
}

func noReject(_ service.Family, h nftables.Hook, s nftables.Statement) bool {
	switch s.(type) {
	case nftables.Reject, nftables.Reset:
		return h.Name == "prerouting"
	}
	return false
}

func noHash(f service.Family, _ nftables.Hook, s nftables.Statement) bool {
	return slices.Contains(key(f, s), nftables.ClientHash)
}

func noForget(_ service.Family, _ nftables.Hook, s nftables.Statement) bool {
	_, is := s.(nftables.Forget)
	return is
}

// key returns the fields that a statement looks up.
func key(f service.Family, s nftables.Statement) []nftables.Field {
	switch s := s.(type) {
	case nftables.InSet:
		return s.Key
	case nftables.Dispatch:
		return s.Key
	case nftables.DNAT:
		return s.Key
	case nftables.SetPriority:
		return s.Key
	case nftables.Recall, nftables.Remember, nftables.Forget:
		return nftables.ClientKey(f)
	}
	return nil
}
