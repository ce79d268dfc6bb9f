package rules_test

import (
	"testing"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// The rules of every kind of chain, for both families and all ways to recognise traffic of pods.
func TestChainText(t *testing.T) {
	byInterface := testConfig()
	byInterface.PodTraffic = rules.PodTraffic{Interface: "veth*"}
	unknown, all := testConfig(), testConfig()
	unknown.PodTraffic = rules.PodTraffic{CIDRs: prefixes("10.244.0.0/16")}
	all.MasqueradeAll = true
	const mark = "meta mark set meta mark | 0x00004000"
	const key = "ip daddr . meta l4proto . th dport . numgen random mod "
	const key6 = "ip6 daddr . meta l4proto . th dport . numgen random mod "
	const hashKey = "ip daddr . meta l4proto . th dport . jhash ip saddr . th sport mod "
	tests := []struct {
		name   string
		shape  rules.Shape
		family service.Family
		config rules.Config
		chain  string
		rules  []string
	}{
		{"drop", rules.Shape{Kind: rules.ShapeDrop}, service.IPv4, testConfig(), "no-local-endpoints",
			[]string{"drop"}},
		{"cluster", rules.Shape{Kind: rules.ShapeCluster, N: 3}, service.IPv4, testConfig(), "cluster-3",
			[]string{"ip saddr != @pod-cidrs " + mark, "dnat ip to " + key + "3 map @endpoints"}},
		{"cluster, IPv6, by interface", rules.Shape{Kind: rules.ShapeCluster, N: 1}, service.IPv6,
			byInterface, "cluster-1",
			[]string{`iifname != "veth*" ` + mark, "dnat ip6 to " + key6 + "1 map @endpoints"}},
		{"cluster, pods of the family not known", rules.Shape{Kind: rules.ShapeCluster, N: 1}, service.IPv6,
			unknown, "cluster-1",
			[]string{"dnat ip6 to " + key6 + "1 map @endpoints"}},
		{"cluster, masquerade all", rules.Shape{Kind: rules.ShapeCluster, N: 1}, service.IPv4, all,
			"cluster-1",
			[]string{mark, "dnat ip to " + key + "1 map @endpoints"}},
		{"external", rules.Shape{Kind: rules.ShapeExternal, N: nftables.MaxSlots}, service.IPv4, byInterface,
			"external-65535",
			[]string{mark, "dnat ip to " + key + "65535 map @endpoints"}},
		{"local", rules.Shape{Kind: rules.ShapeLocal, N: 3, Locals: 2}, service.IPv4, testConfig(),
			"local-2-of-3", []string{
				"fib saddr type local " + mark,
				"fib saddr type local dnat ip to " + key + "3 map @endpoints",
				"ip saddr @pod-cidrs dnat ip to " + key + "3 map @endpoints",
				"dnat ip to " + key + "2 map @local-endpoints"}},
		{"local, none here, pods not known", rules.Shape{Kind: rules.ShapeLocal, N: 3}, service.IPv6, unknown,
			"local-0-of-3", []string{
				"fib saddr type local " + mark,
				"fib saddr type local dnat ip6 to " + key6 + "3 map @endpoints",
				"drop"}},
		{"in turn", rules.Shape{Kind: rules.ShapeExternal, N: 3, Scheduler: service.RoundRobin}, service.IPv4,
			byInterface, "rr-external-3",
			[]string{"meta priority set numgen inc mod 3 offset 1 goto rr-external"}},
		{"in turn, the part", rules.Shape{Kind: rules.ShapeExternal, Scheduler: service.RoundRobin}, service.IPv4,
			byInterface, "rr-external", []string{mark,
				"dnat ip to ip daddr . meta l4proto . th dport . meta priority map @sticky-backends"}},
		{"in turn, local", rules.Shape{Kind: rules.ShapeLocal, N: 3, Locals: 2, Scheduler: service.RoundRobin},
			service.IPv4, testConfig(), "rr-local-2-of-3", []string{
				"fib saddr type local " + mark,
				"fib saddr type local meta priority set numgen inc mod 3 offset 1 goto rr-any",
				"ip saddr @pod-cidrs meta priority set numgen inc mod 3 offset 1 goto rr-any",
				"meta priority set numgen inc mod 2 offset 1 goto rr-local"}},
		{"in turn, local, the part", rules.Shape{Kind: rules.ShapeLocal, Scheduler: service.RoundRobin},
			service.IPv6, testConfig(), "rr-local", []string{
				"dnat ip6 to ip6 daddr . meta l4proto . th dport . meta priority map @sticky-local-backends"}},
		{"by hash", rules.Shape{Kind: rules.ShapeLocal, N: 1021, Locals: 251, Scheduler: service.Maglev},
			service.IPv4, testConfig(), "mh-local-251-of-1021", []string{
				"fib saddr type local " + mark,
				"fib saddr type local dnat ip to " + hashKey + "1021 seed 0x6d676c76 map @endpoints",
				"ip saddr @pod-cidrs dnat ip to " + hashKey + "1021 seed 0x6d676c76 map @endpoints",
				"dnat ip to " + hashKey + "251 seed 0x6d676c76 map @local-endpoints"}},
		{"by hash of the address", rules.Shape{Kind: rules.ShapeExternal, N: 251, Scheduler: service.SourceHash},
			service.IPv6, byInterface, "sh-external-251", []string{mark, "dnat ip6 to ip6 daddr . meta l4proto . " +
				"th dport . jhash ip6 saddr mod 251 seed 0x6d676c76 map @endpoints"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := tt.shape.Chain(tt.family, tt.config)
			var got []string
			for _, r := range c.Rules {
				got = append(got, r.Text(tt.family))
			}
			checkLines(t, "rules", tt.rules, got)
			if c.Name != tt.chain || c.Family != tt.family || c.Hook != nil {
				t.Errorf("chain is %s %s %v, want %s %s", c.Family, c.Name, c.Hook, tt.family, tt.chain)
			}
		})
	}
}
