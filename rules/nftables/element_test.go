package nftables

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/rules/service"
)

// index returns the four bytes of an index on this machine.
func index(i uint32) string {
	return hex.EncodeToString(binary.NativeEndian.AppendUint32(nil, i))
}

// elementCase is an element with the bytes in the kernel's layout and the text in nft's language.
type elementCase struct {
	name      string
	element   Element
	key, data string
	values    Values // of the key
	text      string
}

func elementCases() []elementCase {
	f4 := service.Frontend{Addr: netip.MustParseAddr("10.96.0.10"), Protocol: service.TCP, Port: 80}
	f6 := service.Frontend{Addr: netip.MustParseAddr("fd00:96::10"), Protocol: service.SCTP, Port: 0xabcd}
	const key4 = "0a60000a" + "06000000" + "00500000"
	const key6 = "fd000096000000000000000000000010" + "84000000" + "abcd0000"
	v4 := Values{Addrs: []netip.Addr{f4.Addr}, Protocol: service.TCP, Port: 80}
	v6 := Values{Addrs: []netip.Addr{f6.Addr}, Protocol: service.SCTP, Port: 0xabcd}
	at := func(v Values, index int) Values { v.Index = index; return v }
	numbered := func(v Values, number Class) Values { v.Class = number; return v }
	and := func(v Values, addr string) Values {
		v.Addrs = append(slices.Clone(v.Addrs), netip.MustParseAddr(addr))
		return v
	}
	only := func(addrs ...netip.Addr) Values { return Values{Addrs: addrs} }
	return []elementCase{
		{"services 4", ServiceElement(f4, NewClass(0x4c00, 2), "default/web:http"), key4, index(0x4c000002), v4,
			`10.96.0.10 . tcp . 80 comment "default/web:http" : 4c00:2`},
		{"services 6", ServiceElement(f6, NewClass(0x4f00, 0), ""), key6, index(0x4f000000), v6,
			"fd00:96::10 . sctp . 43981 : 4f00:0"},
		{"shapes", ShapeElement(service.IPv6, NewClass(0x5001, 0xabcd), "local-1-of-43981"), index(0x5001abcd), "",
			Values{Class: 0x5001abcd}, "5001:abcd : goto local-1-of-43981"},
		{"endpoints 4", SlotElement(Endpoints, f4, 258, netip.MustParseAddrPort("10.244.1.2:8080")),
			key4 + index(258), "0af40102" + "1f900000", at(v4, 258),
			"10.96.0.10 . tcp . 80 . 258 : 10.244.1.2 . 8080"},
		{"local-endpoints 6", SlotElement(LocalEndpoints, f6, 1, netip.MustParseAddrPort("[fd00::2]:53")),
			key6 + index(1), "fd000000000000000000000000000002" + "00350000", at(v6, 1),
			"fd00:96::10 . sctp . 43981 . 1 : fd00::2 . 53"},
		{"sticky-slots 4", StickySlotElement(StickySlots, f4, 258, 0x0af40102), key4 + index(258),
			index(0x0af40102), at(v4, 258), "10.96.0.10 . tcp . 80 . 258 : af4:102"},
		{"sticky-local-slots 6", StickySlotElement(StickyLocalSlots, f6, 1, 0xffffffff), key6 + index(1),
			index(0xffffffff), at(v6, 1), "fd00:96::10 . sctp . 43981 . 1 : root"},
		{"sticky-backends 4", StickyBackendElement(StickyBackends, f4, 0x0af40102,
			netip.MustParseAddrPort("10.244.1.2:8080")), key4 + index(0x0af40102), "0af40102" + "1f900000",
			numbered(v4, 0x0af40102), "10.96.0.10 . tcp . 80 . af4:102 : 10.244.1.2 . 8080"},
		{"sticky-local-backends 6", StickyBackendElement(StickyLocalBackends, f6, 5,
			netip.MustParseAddrPort("[fd00::2]:53")), key6 + index(5),
			"fd000000000000000000000000000002" + "00350000", numbered(v6, 5),
			"fd00:96::10 . sctp . 43981 . 0:5 : fd00::2 . 53"},
		{"cluster-ips 4", AddrElement(ClusterIPs, f4.Addr, 1), "0a60000a", "", only(f4.Addr), "10.96.0.10"},
		{"hairpin 4", AddrElement(Hairpin, f4.Addr, 2), "0a60000a0a60000a", "", only(f4.Addr, f4.Addr),
			"10.96.0.10 . 10.96.0.10"},
		{"hairpin 6", AddrElement(Hairpin, f6.Addr, 2),
			"fd000096000000000000000000000010" + "fd000096000000000000000000000010", "",
			only(f6.Addr, f6.Addr), "fd00:96::10 . fd00:96::10"},
		{"service-cidrs 6", PrefixElement(ServiceCIDRs, netip.MustParsePrefix("fd00:96::/108")),
			"fd000096000000000000000000000000", "", only(netip.MustParseAddr("fd00:96::")), "fd00:96::/108"},
		{"pod-cidrs 4", PrefixElement(PodCIDRs, netip.MustParsePrefix("0.0.0.0/0")), "00000000", "",
			only(netip.IPv4Unspecified()), "0.0.0.0/0"},
		{"firewalled", FrontendElement(Firewalled, f4), key4, "", v4, "10.96.0.10 . tcp . 80"},
		{"allowed-sources 4", SourceElement(f4, netip.MustParsePrefix("192.0.2.0/25")), key4 + "c0000200", "",
			and(v4, "192.0.2.0"), "10.96.0.10 . tcp . 80 . 192.0.2.0/25"},
		{"allowed-sources 6", SourceElement(f6, netip.MustParsePrefix("2001:db8::/32")),
			key6 + "20010db8000000000000000000000000", "", and(v6, "2001:db8::"),
			"fd00:96::10 . sctp . 43981 . 2001:db8::/32"},
	}
}

func TestElement(t *testing.T) {
	for _, tt := range elementCases() {
		t.Run(tt.name, func(t *testing.T) {
			e := tt.element
			keySize, dataSize := e.Set.KeySize(), e.Set.DataSize()
			if got := hex.EncodeToString(e.Key[:keySize]); got != tt.key {
				t.Errorf("key is %s, want %s", got, tt.key)
			}
			if got := hex.EncodeToString(e.Data[:dataSize]); got != tt.data {
				t.Errorf("data is %s, want %s", got, tt.data)
			}
			if rest := slices.Concat(e.Key[keySize:], e.Data[dataSize:]); !zero(rest) {
				t.Errorf("bytes behind key and data are not zero: %x", rest)
			}
			if diff := cmp.Diff(tt.values, e.KeyValues(), addrComparer()); diff != "" {
				t.Errorf("key read back (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.text, e.String()); diff != "" {
				t.Errorf("text (-want +got):\n%s", diff)
			}
		})
	}
}

func addrComparer() cmp.Option { return cmp.Comparer(func(a, b netip.Addr) bool { return a == b }) }

func zero(b []byte) bool { return !slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) }

func TestElementDataReadBack(t *testing.T) {
	for _, text := range []string{"10.244.1.2:8080", "[fd00::2]:65535", "[::ffff:10.0.0.1]:1"} {
		b := netip.MustParseAddrPort(text)
		want := service.Frontend{Addr: b.Addr(), Protocol: service.UDP, Port: 53}
		e := SlotElement(Endpoints, want, 65535, b)
		if got := e.DataValues().Backend(); got != b {
			t.Errorf("backend read back is %s, want %s", got, b)
		}
		if got := e.KeyValues().Frontend(); got != want {
			t.Errorf("frontend read back is %s, want %s", got, want)
		}
	}
}

// Compare is by table, set, address, protocol, port, slot or number, and prefix length.
func TestElementCompare(t *testing.T) {
	f4 := service.Frontend{Addr: netip.MustParseAddr("10.0.0.1"), Protocol: service.TCP, Port: 80}
	later := service.Frontend{Addr: netip.MustParseAddr("10.0.0.2"), Protocol: service.TCP, Port: 1}
	f6 := service.Frontend{Addr: netip.MustParseAddr("::1"), Protocol: service.TCP, Port: 80}
	b4 := netip.MustParseAddrPort("10.1.0.1:80")
	b6 := netip.MustParseAddrPort("[fd00::1]:80")
	ordered := []Element{
		ServiceElement(f4, 2, "z"),
		ServiceElement(service.Frontend{Addr: f4.Addr, Protocol: service.TCP, Port: 256}, 1, ""),
		ServiceElement(service.Frontend{Addr: f4.Addr, Protocol: service.UDP, Port: 1}, 1, ""),
		ServiceElement(later, 1, ""),
		ShapeElement(service.IPv4, 0xff, "z"),
		ShapeElement(service.IPv4, 0x100, "b"),
		ShapeElement(service.IPv4, NewClass(1, 0), "a"),
		ShapeElement(service.IPv4, NewClass(0x8000, 0), "a"),
		SlotElement(Endpoints, f4, 0, b4),
		SlotElement(Endpoints, f4, 1, b4),
		SlotElement(Endpoints, f4, 255, b4),
		SlotElement(Endpoints, f4, 256, b4),
		SlotElement(Endpoints, f4, 65535, b4),
		SlotElement(Endpoints, later, 0, b4),
		StickySlotElement(StickySlots, f4, 255, 2),
		StickySlotElement(StickySlots, f4, 256, 1),
		StickyBackendElement(StickyBackends, f4, 0x0affffff, b4),
		StickyBackendElement(StickyBackends, f4, 0x0b000000, b4),
		StickyBackendElement(StickyBackends, later, 1, b4),
		PrefixElement(ServiceCIDRs, netip.MustParsePrefix("10.0.0.0/8")),
		PrefixElement(ServiceCIDRs, netip.MustParsePrefix("10.0.0.0/16")),
		SourceElement(f4, netip.MustParsePrefix("10.0.0.0/16")),
		SourceElement(f4, netip.MustParsePrefix("11.0.0.0/8")),
		SourceElement(later, netip.MustParsePrefix("10.0.0.0/8")),
		ServiceElement(f6, 1, ""),
		SlotElement(Endpoints, f6, 2, b6),
		SlotElement(LocalEndpoints, f6, 1, b6),
		SlotElement(LocalEndpoints, f6, 256, b6),
	}
	shuffled := slices.Clone(ordered)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(shuffled), func(i, j int) {
		shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
	})
	slices.SortFunc(shuffled, func(a, b Element) int { return a.Compare(b.ElementID) })
	if diff := cmp.Diff(setsAndElements(ordered), setsAndElements(shuffled)); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	for i, e := range ordered {
		changed := e
		changed.Chain, changed.Comment, changed.Data[0] = "other", "other", 0xff
		if e.Compare(changed.ElementID) != 0 {
			t.Errorf("element %d does not compare equal to itself with other data", i)
		}
	}
}

func setsAndElements(elements []Element) []string {
	var out []string
	for _, e := range elements {
		out = append(out, fmt.Sprintf("%s %s { %s }", e.Set.Family, e.Set.Kind, e))
	}
	return out
}
