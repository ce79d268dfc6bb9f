package nftables

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/rules/service"
)

// setCase is a kind of set with its sizes in bytes and its definition, in one of the tables.
type setCase struct {
	kind       SetKind
	family     service.Family
	key, data  int
	keyword    string
	definition string
	requires   string
}

func TestSets(t *testing.T) {
	const (
		frontend  = "type ipv4_addr . inet_proto . inet_service"
		frontend6 = "type ipv6_addr . inet_proto . inet_service"
		slot      = " . meta l4proto . th dport . numgen random mod 65536 : "
		slots     = "typeof ip daddr" + slot + "ip daddr . th dport"
		slots6    = "typeof ip6 daddr" + slot + "ip6 daddr . th dport"
		backends  = frontend + " . classid : ipv4_addr . inet_service"
		backends6 = frontend6 + " . classid : ipv6_addr . inet_service"
		dynamic   = "; size 524288; flags dynamic,timeout"
	)
	tests := []setCase{
		{Services, service.IPv4, 12, 4, "map", frontend + " : classid", core},
		{Shapes, service.IPv6, 4, 0, "map", "type classid : verdict", core},
		{Endpoints, service.IPv4, 16, 8, "map", slots, core},
		{LocalEndpoints, service.IPv6, 28, 20, "map", slots6, core},
		{StickySlots, service.IPv4, 16, 4, "map", "typeof ip daddr" + slot + "meta priority", core},
		{StickyBackends, service.IPv6, 28, 20, "map", backends6, core},
		{StickyLocalSlots, service.IPv6, 28, 4, "map", "typeof ip6 daddr" + slot + "meta priority", core},
		{StickyLocalBackends, service.IPv4, 16, 8, "map", backends, core},
		{Affinity, service.IPv4, 16, 4, "map", "type ipv4_addr . ipv4_addr . inet_proto . inet_service : classid" +
			dynamic, core},
		{ClusterIPs, service.IPv4, 4, 0, "set", "type ipv4_addr", core},
		{ServiceCIDRs, service.IPv6, 16, 0, "set", "type ipv6_addr; flags interval", core},
		{PodCIDRs, service.IPv4, 4, 0, "set", "type ipv4_addr; flags interval", core},
		{Hairpin, service.IPv6, 32, 0, "set", "type ipv6_addr . ipv6_addr", core},
		{Firewalled, service.IPv4, 12, 0, "set", frontend, core},
		{AllowedSources, service.IPv6, 40, 0, "set", frontend6 + " . ipv6_addr; flags interval",
			core + ", Linux 5.6 for concatenated intervals"},
		{Affinity, service.IPv6, 4, 4, "map", "typeof numgen random mod 65536 : meta priority" + dynamic, core},
	}
	var kinds []SetKind
	for _, tt := range tests {
		kinds = append(kinds, tt.kind)
		t.Run(fmt.Sprint(tt.family, " ", tt.kind), func(t *testing.T) {
			set := Set{ID: SetID{tt.family, tt.kind}, Name: tt.kind.String()}
			got := setCase{tt.kind, tt.family, set.ID.KeySize(), set.ID.DataSize(), set.Keyword(),
				strings.Join(set.Definition(), "; "), set.Requires()}
			if diff := cmp.Diff(tt, got, cmp.AllowUnexported(setCase{})); diff != "" {
				t.Errorf("set (-want +got):\n%s", diff)
			}
			if e := (Element{}); len(e.Key) < set.ID.KeySize() || len(e.Data) < set.ID.DataSize() {
				t.Errorf("an Element has %d bytes for the key and %d for the data", len(e.Key), len(e.Data))
			}
		})
	}
	if want := append(SetKinds(), Affinity); !slices.Equal(kinds, want) {
		t.Errorf("kinds with a case are %v, want all: %v", kinds, want)
	}
}

func TestSetCompare(t *testing.T) {
	set := func(f service.Family, k SetKind, name string) Set { return Set{ID: SetID{f, k}, Name: name} }
	ordered := []Set{
		set(service.IPv4, Services, "services"), set(service.IPv4, Affinity, "affinity-a"),
		set(service.IPv4, Affinity, "affinity-b"), set(service.IPv6, Services, "services"),
	}
	got := slices.Clone(ordered)
	slices.Reverse(got)
	slices.SortFunc(got, Set.Compare)
	if diff := cmp.Diff(ordered, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestChains(t *testing.T) {
	hook := &Hook{Name: "prerouting", Priority: -100}
	base := Chain{Family: service.IPv4, Name: "b", Hook: hook}
	regular, other := Chain{Family: service.IPv4, Name: "a"}, Chain{Family: service.IPv6, Name: "a"}
	if got, want := base.Head(), "type nat hook prerouting priority -100; policy accept;"; got != want {
		t.Errorf("head of a base chain is %q, want %q", got, want)
	}
	if got, want := base.Requires(), "CONFIG_NFT_NAT (modules nft_chain_nat, nft_nat)"; got != want {
		t.Errorf("a base chain requires %q, want %q", got, want)
	}
	if regular.Head() != "" || regular.Requires() != core {
		t.Errorf("a regular chain has the head %q and requires %q", regular.Head(), regular.Requires())
	}
	if regular.Compare(base) >= 0 || base.Compare(other) >= 0 {
		t.Error("chains are not ordered by table and name")
	}
}
