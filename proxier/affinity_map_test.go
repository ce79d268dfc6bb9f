package proxier

import (
	"encoding/binary"
	"errors"
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
	seen, random := map[nftables.Key]netip.Addr{}, rand.New(rand.NewPCG(1, 2))
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

// clientHash is the key of a client and a frontend of TCP in the kernel's map of IPv6 clients. If it were not
// what the kernel computes, the test with its packets would fail.
func clientHash(client netip.Addr, frontend netip.AddrPort) nftables.Key {
	h := nftables.Header{Src: client, Dst: frontend.Addr(), Protocol: service.TCP, Port: frontend.Port()}
	return h.Key(nftables.ClientKey(service.IPv6))
}
