package proof

import (
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/proof/bytecode"
)

// neighbours are tables of other programs: a proxy for Services that are not ours, with addresses of a
// ServiceCIDR, and of one of ours for single clients, before our place and behind it; a network policy, which
// sees the address of the endpoint; and a chain of a network plugin that accepts traffic of pods before ours.
const neighbours = `
table ip proxy {
	chain first { type nat hook prerouting priority -101; policy accept;
		ip saddr 10.244.9.8 ip daddr 10.96.0.10 tcp dport 80 dnat to 10.244.1.77:80; }
	chain early { type nat hook prerouting priority -99; policy accept;
		ip saddr 10.244.9.9 ip daddr 10.96.0.10 tcp dport 80 dnat to 10.244.1.77:80;
		ip daddr 10.96.77.1 tcp dport 80 dnat to 10.244.1.77:80; }
	chain late { type nat hook prerouting priority -91; policy accept;
		ip daddr 10.96.77.2 tcp dport 80 dnat to 10.244.1.77:80; }
	chain output { type nat hook output priority -99; policy accept;
		ip daddr 10.96.77.1 tcp dport 80 dnat to 10.244.1.77:80; }
}
table ip network-policy {
	chain forward { type filter hook forward priority 0; policy accept;
		ip saddr 192.0.2.66 ip daddr 10.244.1.11 drop; }
	chain pods { type nat hook postrouting priority 99; policy accept; ip saddr 10.244.0.0/16 accept; }
}
`

// TestNeighbours runs packets through nftproxy's tables and those of others: the priorities of the hooks are
// in nobody's way (docs/design.md, "Hooks and priorities").
func TestNeighbours(t *testing.T) {
	c := newProofCases(t, "service-cidr-unallocated")[0]
	if _, err := c.ns.Nft(neighbours, "-f", "-"); err != nil {
		t.Fatal(err)
	}
	m := bytecode.Machine{Ruleset: dump(t, c.ns), Local: netip.Addr.IsLoopback}
	other := netip.MustParseAddrPort("10.244.1.77:80")
	ours := netip.MustParseAddrPort("10.244.1.11:8080")
	for _, test := range []struct {
		from, iface, to string
		want            bytecode.Outcome
	}{
		{"10.244.1.12", "veth", "10.96.77.1", bytecode.Outcome{Verdict: bytecode.Translated, Endpoint: other}},
		{"10.244.1.12", "veth", "10.96.77.2", bytecode.Outcome{Verdict: bytecode.Translated, Endpoint: other}},
		{"192.0.2.1", "", "10.96.77.1", bytecode.Outcome{Verdict: bytecode.Translated, Endpoint: other}},
		{"10.244.9.8", "veth", "10.96.0.10", bytecode.Outcome{Verdict: bytecode.Translated, Endpoint: other}},
		{"10.244.9.9", "veth", "10.96.0.10", bytecode.Outcome{Verdict: bytecode.Translated, Endpoint: ours}},
		{"10.244.1.12", "veth", "10.96.77.3", bytecode.Outcome{Verdict: bytecode.Dropped}},
		{"192.0.2.9", "eth0", "10.96.0.10",
			bytecode.Outcome{Verdict: bytecode.Translated, Endpoint: ours, Masqueraded: true}},
		{"192.0.2.66", "eth0", "10.96.0.10", bytecode.Outcome{Verdict: bytecode.Dropped}},
	} {
		p := bytecode.Packet{Src: netip.MustParseAddr(test.from), Dst: netip.MustParseAddr(test.to),
			Protocol: unix.IPPROTO_TCP, Port: 80, Interface: test.iface}
		got, err := m.Outcomes(p, nil, nil)
		if err != nil || !slices.Equal(got, []bytecode.Outcome{test.want}) {
			t.Errorf("%+v: %+v, %v, want %+v", p, got, err, test.want)
		}
	}
}
