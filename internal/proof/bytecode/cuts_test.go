package bytecode

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestCutsOfPrefixes checks that a class begins at the first address of a prefix and behind its last one,
// however nft compares it: all of the address, its first bytes, or these with a mask.
func TestCutsOfPrefixes(t *testing.T) {
	r, err := read(t, `
		table ip t {
			chain c {
				ip saddr 192.0.2.1
				ip saddr 10.0.0.0/8
				ip saddr 172.16.0.0/12
				ip daddr 198.51.100.128/25
			}
		}
		table ip6 t {
			chain c {
				ip6 saddr fd00:10:244::/56
				ip6 daddr 2001:db8::/29
			}
		}`)
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range []uint8{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6} {
		c := NewCuts()
		if err := c.Add(r, family); err != nil {
			t.Fatal(err)
		}
		src := addrs("192.0.2.1", "192.0.2.2", "10.0.0.0", "11.0.0.0", "172.16.0.0", "172.32.0.0")
		dst := addrs("198.51.100.128", "198.51.101.0")
		if family == unix.NFPROTO_IPV6 {
			src, dst = addrs("fd00:10:244::", "fd00:10:244:100::"), addrs("2001:db8::", "2001:dc0::")
		}
		if diff := cmp.Diff(src, c.Src, cmp.Comparer(same)); diff != "" {
			t.Errorf("sources (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(dst, c.Dst, cmp.Comparer(same)); diff != "" {
			t.Errorf("destinations (-want +got):\n%s", diff)
		}
	}
}

func same(a, b netip.Addr) bool { return a == b }

func addrs(texts ...string) map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	for _, text := range texts {
		out[netip.MustParseAddr(text)] = true
	}
	return out
}
