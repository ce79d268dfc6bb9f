package bytecode

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

func TestMain(m *testing.M) { lab.Main(m) }

// read loads a script into the kernel and reads it back.
func read(t *testing.T, script string) (*Ruleset, error) {
	t.Helper()
	ns := lab.TestNamespace(t)
	if _, err := ns.Nft(script, "-f", "-"); err != nil {
		t.Fatal(err)
	}
	var r *Ruleset
	err := ns.Do(func() error {
		conn, err := netlink.Dial()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		r, err = Read(conn)
		return err
	})
	return r, err
}

// base returns a table with a base chain that has the rules, and further objects.
func base(hook, rules string, more ...string) string {
	chain := "\nchain base { type " + hook + "\n" + rules + "\n}\n"
	return "table ip t {\n" + strings.Join(more, "\n") + chain + "}\n"
}

// What is not known is refused with its name.
func TestRefusals(t *testing.T) {
	const output = "filter hook output priority 0;"
	for want, script := range map[string]string{
		"expression limit":       base(output, "limit rate 1/second accept"),
		"expression redir":       base("nat hook output priority 0;", "tcp dport 80 redirect to :81"),
		"expression meta: key 0": base(output, "meta length 80 drop"),
		"expression ct: key 3":   base(output, "ct mark 1 drop"),
		"expression fib: result": base("filter hook input priority 0;", "fib daddr . iif type local drop"),
		"expression nat: type 0": base("nat hook postrouting priority 0;", "snat to 192.0.2.9"),
		"type route":             base("route hook output priority 0;", "accept"),
		"have one priority":      base(output, "accept", "chain second { type "+output+" }"),
		"the family inet":        "table inet t { }",
		"set s: attribute 4": base(output, "accept",
			"set s { type ipv4_addr; flags timeout; elements = { 192.0.2.1 timeout 1h } }"),
	} {
		if _, err := read(t, script); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", script, err, want)
		}
	}
}

// Each rule decides on packets to 192.0.2.1, port 80 of TCP, from 10.0.0.5 on eth0.
func TestExpressions(t *testing.T) {
	const forward = "filter hook forward priority 0;"
	const chains = "chain none { }\nchain no { drop; }\nchain back { return; drop; }\n"
	const sets = "set range { type ipv4_addr; flags interval; elements = { 192.0.2.0/31 } }\n" +
		"set both { type ipv4_addr . inet_service; flags interval; elements = { 192.0.2.0/24 . 79-81 } }\n" +
		"set other { type ipv4_addr . inet_service; flags interval; elements = { 192.0.2.0/24 . 81-82 } }\n" +
		"map verdicts { type inet_service : verdict; elements = { 80 : goto no } }\n" +
		"map places { type inet_service : ipv4_addr . inet_service; elements = { 80 : 10.1.1.1 . 8080 } }\n"
	to := Outcome{Verdict: Translated, Endpoint: netip.MustParseAddrPort("10.1.1.1:8080")}
	dropped, untouched := []Outcome{{Verdict: Dropped}}, []Outcome{{}}
	for _, test := range []struct {
		hook, rules string
		want        []Outcome
	}{
		{forward, "ip daddr @range drop", dropped},
		{forward, "ip daddr . tcp dport @both drop", dropped},
		{forward, "ip daddr . tcp dport @other drop", untouched},
		{forward, "ip saddr 10.0.0.0/16 drop", dropped},
		{forward, "ip saddr != 10.0.0.0/16 drop", untouched},
		{forward, "tcp dport 70-90 drop", dropped},
		{forward, "tcp dport != 70-90 drop", untouched},
		{forward, "tcp dport vmap @verdicts", dropped},
		{forward, "jump back; drop", dropped},
		{forward, "goto back; drop", untouched},
		{forward, "jump none; drop", dropped},
		{forward + " policy drop;", "goto none", dropped},
		{forward + " policy drop;", "accept", untouched},
		{"filter hook input priority 0;", "drop", untouched},
		{forward, "iifname eth0 drop", dropped},
		{forward, "iifname eth1 drop", untouched},
		{forward, "iifname \"et*\" drop", dropped},
		{forward, "ct state established drop", untouched},
		{forward, "ct state new ct original ip daddr 192.0.2.1 drop", dropped},
		{forward, "fib daddr type local drop", untouched},
		{forward, "fib saddr type unicast drop", dropped},
		{"filter hook prerouting priority -90;", "ct status dnat drop", untouched},
		{"filter hook prerouting priority -150;", "reject", []Outcome{{Verdict: Refused}}},
		{forward, "reject with tcp reset", []Outcome{{Verdict: Refused, Reset: true}}},
		{"nat hook prerouting priority 5;", "dnat ip to tcp dport map @places", []Outcome{to}},
		{"nat hook postrouting priority 5;", "masquerade", []Outcome{{Masqueraded: true}}},
		{forward, "numgen random mod 2 0 drop", []Outcome{{Verdict: Dropped}, {}}},
	} {
		r, err := read(t, base(test.hook, test.rules, chains, sets))
		if err != nil {
			t.Errorf("%s: %v", test.rules, err)
			continue
		}
		m := Machine{Ruleset: r, Local: netip.Addr.IsLoopback}
		got, err := m.Outcomes(Packet{Src: netip.MustParseAddr("10.0.0.5"), Dst: netip.MustParseAddr("192.0.2.1"),
			Protocol: unix.IPPROTO_TCP, Port: 80, Interface: "eth0"}, nil, nil)
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%s %s: %+v, %v, want %+v", test.hook, test.rules, got, err, test.want)
		}
	}
}

// A dynamic set has a client or not, and remembers it unless it is full.
func TestDynamicSet(t *testing.T) {
	r, err := read(t, base("nat hook prerouting priority 0;",
		"ip saddr @known dnat to 10.1.1.1\nupdate @known { ip saddr } dnat to 10.1.1.2\ndnat to 10.1.1.3",
		"set known { type ipv4_addr; flags dynamic,timeout; timeout 1h; }"))
	if err != nil {
		t.Fatal(err)
	}
	p := Packet{Src: netip.MustParseAddr("10.0.0.5"), Dst: netip.MustParseAddr("192.0.2.1"),
		Protocol: unix.IPPROTO_TCP, Port: 80, Interface: "eth0"}
	for _, test := range []struct {
		empty bool
		want  []string
	}{
		{true, []string{"10.1.1.2:80"}},
		{false, []string{"10.1.1.1:80", "10.1.1.2:80", "10.1.1.3:80"}},
	} {
		m := Machine{Ruleset: r, Local: netip.Addr.IsLoopback, Empty: test.empty}
		var got []string
		err := m.Run(p, nil, func(o Outcome, known Memory) {
			got = append(got, o.Endpoint.String())
			again := Machine{Ruleset: r, Local: m.Local, Empty: true}
			if next, _ := again.Outcomes(p, slices.Clone(known), nil); o.Endpoint.Port() != 80 || len(next) != 1 {
				t.Errorf("after %v: %v", o, next)
			}
		})
		slices.Sort(got)
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("empty %t: %v, %v, want %v", test.empty, got, err, test.want)
		}
	}
}

// The hash is the one that nftproxy looks for in the map of clients, which TestAffinityCollisions of proxier
// compares with the kernel's.
func TestHash(t *testing.T) {
	h := nftables.Header{Src: netip.MustParseAddr("fd00::1"), Dst: netip.MustParseAddr("fd00:10:96::10"),
		Protocol: service.TCP, Port: 80}
	key := slices.Concat(h.Src.AsSlice(), h.Dst.AsSlice(), []byte{6, 0, 0, 0, 0, 80, 0, 0})
	w := &way{}
	copy(w.registers[32:], key)
	jenkins{from: 32, size: len(key), to: 16, modulus: 1<<32 - 1, seed: 0x6e667470}.run(w)
	want := h.Key(nftables.ClientKey(service.IPv6))
	if got := w.registers.load32(16); got != binary.NativeEndian.Uint32(want[:]) {
		t.Errorf("hash %#x, want %#x", got, want[:4])
	}
}

// Two values that no cut separates have one fate; the values where it changes are cuts.
func TestCuts(t *testing.T) {
	r, err := read(t, base("filter hook forward priority 0;", "ip saddr 10.0.0.0/16 tcp dport 70-90 drop\n"+
		"ip saddr . ip daddr @pairs drop\niifname \"veth*\" meta mark and 0x10 == 0x10 drop",
		"set pairs { type ipv4_addr . ipv4_addr; elements = { 10.0.0.5 . 192.0.2.1 } }"))
	if err != nil {
		t.Fatal(err)
	}
	c := NewCuts()
	if err := c.Add(r, unix.NFPROTO_IPV4); err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"10.0.0.0", "10.1.0.0", "10.0.0.5", "10.0.0.6"} {
		if !c.Src[netip.MustParseAddr(a)] {
			t.Errorf("no cut of the source at %s: %v", a, c.Src)
		}
	}
	if len(c.Src) != 4 || len(c.Dst) != 2 || !c.Port[70] || !c.Port[91] || c.Port[80] ||
		!c.Interfaces["veth*"] || !c.Marks[0x10] || !c.Protocol[6] || c.Socket {
		t.Errorf("cuts %+v", c)
	}
}
