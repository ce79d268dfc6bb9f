package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"net/netip"
	"strings"

	"github.com/nftproxy/nftproxy/proxier/address"
)

// addresses replaces addresses so that two with a common prefix of n bits get two with a common prefix of n
// bits, and no longer one: a pod stays in the pod range, and ranges overlap as before. Each bit is flipped,
// or not, by a function of the key and of the bits before it, as in Crypto-PAn (Xu et al., 2002). The first
// bits stay, because they have a meaning: private, link-local, loopback, multicast.
type addresses struct{ key [32]byte }

// keptBits returns how many bits of an address stay.
func keptBits(a netip.Addr) int {
	if a.Is6() {
		switch first := a.As16()[0]; first {
		case 0, 0xff: // unspecified, loopback, multicast
			return 128
		}
		return 16
	}
	switch first := a.As4()[0]; {
	case first == 0, first == 127, first >= 224:
		return 32
	case first == 192, first == 169: // 192.168.0.0/16, 169.254.0.0/16
		return 16
	case first == 172: // 172.16.0.0/12
		return 12
	case first == 100: // 100.64.0.0/10
		return 10
	}
	return 8
}

func (m *addresses) addr(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	in := a.AsSlice()
	out := a.AsSlice()
	for bit := keptBits(a); bit < 8*len(in); bit++ {
		if m.flips(in, bit) {
			out[bit/8] ^= 0x80 >> (bit % 8)
		}
	}
	mapped, _ := netip.AddrFromSlice(out)
	return mapped
}

// flips returns whether a bit is flipped, which depends on the bits before it.
func (m *addresses) flips(in []byte, bit int) bool {
	mac := hmac.New(sha256.New, m.key[:])
	before := make([]byte, len(in), len(in)+2)
	copy(before, in[:bit/8])
	before[bit/8] = in[bit/8] & ^byte(0xff>>(bit%8))
	mac.Write(append(before, byte(bit), byte(len(in))))
	return mac.Sum(nil)[0]&1 == 1
}

// text replaces an address or a CIDR in a field of an object. Whatever else it has becomes "invalid".
func (m *addresses) text(text string) string {
	trimmed := strings.TrimSpace(text)
	if a, err := address.ParseAddr(trimmed); err == nil {
		return m.addr(a).String()
	}
	if p, err := address.ParsePrefix(trimmed); err == nil {
		return netip.PrefixFrom(m.addr(p.Addr()), p.Bits()).Masked().String()
	}
	if text == "" || text == "None" || text == "primary" { // of clusterIP, and of nodePortAddresses
		return text
	}
	return "invalid"
}

// list replaces the addresses of a list that is one text: the pod ranges of both families.
func (m *addresses) list(text string) string {
	if text == "" {
		return ""
	}
	return strings.Join(m.texts(strings.Split(text, ",")), ",")
}

func (m *addresses) texts(list []string) (out []string) {
	for _, text := range list {
		out = append(out, m.text(text))
	}
	return out
}
