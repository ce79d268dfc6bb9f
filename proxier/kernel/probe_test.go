package kernel

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// This kernel has all features, when they are checked in one batch and when they are checked one by one.
func TestProbeFindsAll(t *testing.T) {
	ns := lab.TestNamespace(t)
	c := testDial(t, ns, Options{})
	before := mustGeneration(t, c)
	err := ns.Do(func() error {
		missing, err := Probe()
		for _, m := range missing {
			t.Errorf("missing: %v", m)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range allFeatures() {
		if refused, err := check(c.Conn, []feature{f}); refused != nil || err != nil {
			t.Errorf("%s %s alone: refused %v, error %v", f.family, f, refused, err)
		}
	}
	if after := mustGeneration(t, c); after != before {
		t.Errorf("the probe moved the generation from %d to %d", before, after)
	}
}

// The probe finds a feature that no kernel has among all others, and names it.
func TestProbeRefused(t *testing.T) {
	c := testConn(t)
	before := mustGeneration(t, c)
	output := &nftables.Hook{Name: "output", Priority: -100}
	many := slices.Repeat([]nftables.Field{nftables.CtProto}, 17)
	for _, tt := range []struct {
		name  string
		add   feature
		want  string
		needs string
		errno unix.Errno
	}{
		{"hook", feature{hook: &nftables.Hook{Name: "none"}},
			"chain of type nat in none", "CONFIG_NFT_NAT (modules nft_chain_nat, nft_nat)", unix.EOPNOTSUPP},
		{"more ct keys than registers", feature{hook: output, rule: nftables.Rule{
			nftables.Translated{}, nftables.InSet{Key: many, Set: "cluster-ips"}, nftables.Drop{},
		}}, `"ct protocol . ct protocol . ct`, "CONFIG_NFT_CT (module nft_ct)", unix.ERANGE},
		{"numgen mod 0", feature{hook: output, rule: nftables.Rule{
			nftables.AddrLocal{Addr: nftables.SrcAddr},
			nftables.DNAT{Key: nftables.SlotKey(0), Map: "endpoints"},
		}}, `"dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 0 map @endpoints" in output`,
			"CONFIG_NFT_NUMGEN (module nft_numgen)", unix.ERANGE},
		{"no set", feature{hook: output, rule: nftables.Rule{
			nftables.Translated{}, nftables.InSet{Key: []nftables.Field{nftables.SrcAddr}, Set: "none"},
		}}, `"ip saddr @none" in output`, "CONFIG_NF_TABLES (module nf_tables)", unix.ENOENT},
		{"long name of a set", feature{set: &nftables.Set{
			ID:   nftables.SetID{Family: service.IPv4, Kind: nftables.AllowedSources},
			Name: strings.Repeat("x", 256),
		}}, "set xxx", "Linux 5.6 for concatenated intervals", unix.ERANGE},
	} {
		t.Run(tt.name, func(t *testing.T) {
			all := features(service.IPv4)
			tt.add.family, tt.add.sets = service.IPv4, all[len(all)-1].sets
			p := prober{check: func(f []feature) (*netlink.Error, error) { return check(c.Conn, f) }}
			if err := p.probe(slices.Insert(all, len(all)/3, tt.add)); err != nil {
				t.Fatal(err)
			}
			if len(p.missing) != 1 {
				t.Fatalf("missing %v, want one", p.missing)
			}
			m := p.missing[0]
			if m.Family != service.IPv4 || m.WholeFamily() || !strings.HasPrefix(m.Feature, tt.want) ||
				!strings.Contains(m.Needs, tt.needs) || !errors.Is(m.Err, tt.errno) {
				t.Errorf("missing %v, want %s, which needs %s, for %v", m, tt.want, tt.needs, tt.errno)
			}
		})
	}
	if after := mustGeneration(t, c); after != before {
		t.Errorf("the probe moved the generation from %d to %d", before, after)
	}
}

// The probe asks for the expressions that rulesets have, as the kernel lists them, and for no others. It must
// not ask for the family-independent reject (icmpx), which Linux 5.10 refuses in the families ip and ip6 and
// rulesets do not use.
func TestProbeAsksForRules(t *testing.T) {
	c := testConn(t)
	for _, family := range service.Families() {
		mustCommit(t, c, func(b *netlink.Batch) {
			created := map[string]bool{}
			for _, f := range features(family) {
				if err := f.append(b, created); err != nil {
					t.Fatal(err)
				}
			}
		})
		want := map[string][]string{}
		_, specimens := rules.Specimens(family)
		for _, s := range specimens {
			chain := feature{family: family, hook: &s.Hook}.chain()
			normal, err := normalRules(nftables.Chain{Family: family, Rules: []nftables.Rule{s.Rule}})
			if err != nil {
				t.Fatal(err)
			}
			want[chain.Name] = append(want[chain.Name], normal...)
		}
		got, rejects := map[string][]string{}, map[string]bool{}
		err := c.Dump(unix.NFT_MSG_GETRULE, family.Number(), probeTable, "", func(attributes []byte) error {
			chain, normal := parseRule(attributes)
			got[chain] = append(got[chain], normal)
			for line := range strings.Lines(normal) {
				if strings.HasPrefix(line, "reject") {
					rejects[strings.TrimSpace(line)] = true
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("rules of the probe in table %s (-want +got):\n%s", family, diff)
		}
		// Attribute 1 is the type, which is absent for 0, ICMP unreachable, and 1 for TCP reset. Attribute 2
		// is the code: port unreachable is 3 of ICMP and 4 of ICMPv6.
		code := map[service.Family]int{service.IPv4: 3, service.IPv6: 4}[family]
		wantRejects := map[string]bool{fmt.Sprintf("reject 2:%02x", code): true, "reject 1:00000001": true}
		if diff := cmp.Diff(wantRejects, rejects); diff != "" {
			t.Errorf("rejects of the probe in table %s (-want +got):\n%s", family, diff)
		}
	}
}

// Without CAP_NET_ADMIN the probe and Cleanup return an error: nothing is known.
func TestPermission(t *testing.T) {
	ns := lab.TestNamespace(t)
	errs := make(chan map[string]error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread has no capabilities and ends with the goroutine
		got := map[string]error{}
		got["enter"] = ns.Do(func() error {
			c, err := Dial(Options{})
			if err != nil {
				return err
			}
			defer c.Close()
			header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var none [2]unix.CapUserData
			if err := unix.Capset(&header, &none[0]); err != nil {
				return err
			}
			_, got["probe"] = Probe()
			_, got["cleanup"] = c.Cleanup(service.Families())
			return nil
		})
		errs <- got
	}()
	got := <-errs
	if err := got["enter"]; err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"probe", "cleanup"} {
		if err := got[name]; !errors.Is(err, netlink.ErrPermission) || !errors.Is(err, os.ErrPermission) {
			t.Errorf("%s: %v, want ErrPermission", name, err)
		}
	}
}

func BenchmarkProbe(b *testing.B) {
	ns := lab.TestNamespace(b)
	err := ns.Do(func() error {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Probe(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}
