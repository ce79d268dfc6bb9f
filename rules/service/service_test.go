package service

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestFamilyOf(t *testing.T) {
	for addr, want := range map[string]Family{
		"10.0.0.1": IPv4, "fd00::1": IPv6, "::ffff:10.0.0.1": IPv6, "fe80::1%eth0": IPv6,
	} {
		if got := FamilyOf(netip.MustParseAddr(addr)); got != want {
			t.Errorf("family of %s is %s, want %s", addr, got, want)
		}
	}
}

func TestFamily(t *testing.T) {
	type properties struct {
		Name, AddrType, Option, Module string
		AddrSize                       int
		Number                         uint8
	}
	want := []properties{
		{"ip", "ipv4_addr", "IPV4", "ipv4", 4, unix.NFPROTO_IPV4},
		{"ip6", "ipv6_addr", "IPV6", "ipv6", 16, unix.NFPROTO_IPV6},
	}
	var got []properties
	for _, f := range Families() {
		got = append(got, properties{f.String(), f.AddrType(), f.Option(), f.Module(), f.AddrSize(), f.Number()})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("families (-want +got):\n%s", diff)
	}
	if IPv4.Number() != unix.AF_INET || IPv6.Number() != unix.AF_INET6 {
		t.Error("the numbers are not those of the address families")
	}
}

func TestProtocol(t *testing.T) {
	want := map[Protocol]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_SCTP: "sctp"}
	got := map[Protocol]string{}
	for _, p := range Protocols() {
		got[p] = p.String()
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("protocols (-want +got):\n%s", diff)
	}
	if got := Protocol(47).String(); got != "47" {
		t.Errorf("a protocol that no Service has prints as %q, want its number", got)
	}
}

// Frontends print as in nft; they are ordered by address, protocol and port, numerically.
func TestFrontend(t *testing.T) {
	f := func(addr string, p Protocol, port uint16) Frontend {
		return Frontend{Addr: netip.MustParseAddr(addr), Protocol: p, Port: port}
	}
	ordered := []Frontend{
		f("9.0.0.1", UDP, 80), f("10.0.0.1", TCP, 443), f("10.0.0.1", UDP, 53), f("10.0.0.1", UDP, 443), f("fd00::1", TCP, 1),
	}
	got := slices.Clone(ordered)
	slices.Reverse(got)
	slices.SortFunc(got, Frontend.Compare)
	var texts []string
	for _, f := range got {
		texts = append(texts, f.String())
	}
	want := []string{
		"9.0.0.1 . udp . 80", "10.0.0.1 . tcp . 443", "10.0.0.1 . udp . 53", "10.0.0.1 . udp . 443", "fd00::1 . tcp . 1",
	}
	if diff := cmp.Diff(want, texts); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestName(t *testing.T) {
	ordered := []Name{{"a", "z"}, {"a-b", "a"}, {"b", "a"}, {"b", "b"}}
	got := slices.Clone(ordered)
	slices.Reverse(got)
	slices.SortFunc(got, Name.Compare)
	if diff := cmp.Diff(ordered, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if got := got[1].String(); got != "a-b/a" {
		t.Errorf("name prints as %q", got)
	}
}
