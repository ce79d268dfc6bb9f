package proxier

import (
	"encoding/binary"
	"errors"
	"math"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// fillAffinity remembers other clients of a frontend until the kernel's map of IPv4 clients is full.
func fillAffinity(t *testing.T, ns *lab.Namespace, f service.Frontend) {
	t.Helper()
	var conn *netlink.Conn
	if err := ns.Do(func() (err error) { conn, err = netlink.Dial(); return err }); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := netip.MustParseAddr("100.64.0.1")
	// The last ones one by one: the kernel refuses a transaction that does not fit as a whole.
	nobody := remembered{number: 1, timeout: 3 * time.Hour}
	client = addClients(t, conn, f, client, nftables.AffinitySize-100, nobody)
	for range 200 {
		var b netlink.Batch
		appendClients(&b, f, client, 1, nobody)
		if err := conn.Commit(&b); errors.Is(err, unix.ENFILE) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		client = client.Next()
	}
	t.Fatal("the map is not full")
}

// remembered is what the kernel remembers about a client: the number of an endpoint, 1 is none, and for how
// long.
type remembered struct {
	number  uint32
	timeout time.Duration
}

// addClients remembers n clients of a frontend, and returns the address after theirs.
func addClients(tb testing.TB, conn *netlink.Conn, f service.Frontend, first netip.Addr, n int,
	r remembered) netip.Addr {
	tb.Helper()
	const fits = 50_000 // the socket's send buffer, outside the initial user namespace
	for ; n > 0; n -= fits {
		var b netlink.Batch
		first = appendClients(&b, f, first, min(n, fits), r)
		if err := conn.Commit(&b); err != nil {
			tb.Fatal(err)
		}
	}
	return first
}

// appendClients appends n clients of a frontend, and returns the address after theirs.
func appendClients(b *netlink.Batch, f service.Frontend, first netip.Addr, n int, r remembered) netip.Addr {
	const timeout = 4 // NFTA_SET_ELEM_TIMEOUT, in milliseconds
	client := first
	for n > 0 {
		b.Message(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, unix.NFPROTO_IPV4)
		b.String(unix.NFTA_SET_ELEM_LIST_TABLE, nftables.TableName)
		b.String(unix.NFTA_SET_ELEM_LIST_SET, nftables.Affinity.String())
		list := b.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		for ; n > 0 && b.Size()-list < 60000; n-- {
			key := append(client.AsSlice(), f.Addr.AsSlice()...)
			key = append(key, byte(f.Protocol), 0, 0, 0, byte(f.Port>>8), byte(f.Port), 0, 0)
			elem := b.Nest(unix.NFTA_LIST_ELEM)
			appendValue(b, unix.NFTA_SET_ELEM_KEY, key)
			appendValue(b, unix.NFTA_SET_ELEM_DATA, binary.NativeEndian.AppendUint32(nil, r.number))
			b.U64(timeout, uint64(r.timeout.Milliseconds()))
			b.EndNest(elem)
			client = client.Next()
		}
		b.EndNest(list)
	}
	return client
}

func appendValue(b *netlink.Batch, typ uint16, value []byte) {
	data := b.Nest(typ)
	b.Bytes(unix.NFTA_DATA_VALUE, value)
	b.EndNest(data)
}

// collision returns two addresses of the client's network, the first as a client of frontend f and the second
// of g, that are remembered by the same hash.
func collision(t *testing.T, f, g netip.AddrPort) (a, b netip.Addr) {
	t.Helper()
	seen, random := map[uint32]netip.Addr{}, rand.New(rand.NewPCG(1, 2))
	for range 1 << 20 {
		addr := [16]byte{0x20, 0x01, 0x0d, 0xb8}
		binary.BigEndian.PutUint64(addr[8:], random.Uint64())
		client := netip.AddrFrom16(addr)
		if other, ok := seen[clientHash(client, g)]; ok && other != client {
			return other, client
		}
		seen[clientHash(client, f)] = client
	}
	t.Fatal("found no collision")
	return a, b
}

// clientHash is nft's jhash of a client and a frontend of TCP: jhash of linux/jhash.h over the concatenation
// as in registers, scaled to the modulus as by reciprocal_scale of linux/kernel.h.
func clientHash(client netip.Addr, frontend netip.AddrPort) uint32 {
	key := append(client.AsSlice(), frontend.Addr().AsSlice()...)
	key = append(key, unix.IPPROTO_TCP, 0, 0, 0)
	key = append(binary.BigEndian.AppendUint16(key, frontend.Port()), 0, 0)
	const seed = 0x6e667470 // as in the rules; a wrong one makes the test fail
	return uint32(uint64(jhash(key, seed)) * math.MaxUint32 >> 32)
}

// jhash is Jenkins' lookup3 as in linux/jhash.h, for a length that is not 0.
func jhash(key []byte, seed uint32) uint32 {
	a := 0xdeadbeef + uint32(len(key)) + seed
	b, c := a, a
	word := func(i int) uint32 {
		var w [4]byte
		if i < len(key) {
			copy(w[:], key[i:])
		}
		return binary.LittleEndian.Uint32(w[:])
	}
	i := 0
	for ; len(key)-i > 12; i += 12 {
		a, b, c = a+word(i), b+word(i+4), c+word(i+8)
		a = (a - c) ^ bits.RotateLeft32(c, 4)
		c += b
		b = (b - a) ^ bits.RotateLeft32(a, 6)
		a += c
		c = (c - b) ^ bits.RotateLeft32(b, 8)
		b += a
		a = (a - c) ^ bits.RotateLeft32(c, 16)
		c += b
		b = (b - a) ^ bits.RotateLeft32(a, 19)
		a += c
		c = (c - b) ^ bits.RotateLeft32(b, 4)
		b += a
	}
	a, b, c = a+word(i), b+word(i+4), c+word(i+8)
	c = (c ^ b) - bits.RotateLeft32(b, 14)
	a = (a ^ c) - bits.RotateLeft32(c, 11)
	b = (b ^ a) - bits.RotateLeft32(a, 25)
	c = (c ^ b) - bits.RotateLeft32(b, 16)
	a = (a ^ c) - bits.RotateLeft32(c, 4)
	b = (b ^ a) - bits.RotateLeft32(a, 14)
	return (c ^ b) - bits.RotateLeft32(b, 24)
}
