package conntrack

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/internal/netfilter"
	"github.com/nftproxy/nftproxy/rules/service"
)

func TestMain(m *testing.M) { lab.Main(m) }

func newNamespace(t testing.TB) *lab.Namespace {
	t.Helper()
	ns, err := lab.NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// entry is a flow of the tests: client to frontend, answered by backend.
type entry struct {
	protocol                  service.Protocol
	client, frontend, backend netip.AddrPort
	zone                      uint16
}

func (e entry) String() string {
	return fmt.Sprintf("%s %s > %s = %s zone %d", e.protocol, e.client, e.frontend, e.backend, e.zone)
}

// create makes entries in a namespace.
func create(t testing.TB, ns *lab.Namespace, entries []entry) {
	t.Helper()
	s, err := openSocket(ns.FD(), ackBufferSize)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for part := range slices.Chunk(entries, batchSize) {
		var p []byte
		for _, e := range part {
			p = appendNew(p, e)
		}
		if err := s.send(p); err != nil {
			t.Fatal(err)
		}
		if answer, err := netfilter.Receive(s.fd, s.buf); err == nil {
			for m := range netfilter.Messages(answer) {
				t.Fatalf("create flows: %v", errno(m))
			}
		}
	}
}

// appendNew adds the request to make an entry that is confirmed, answered and lives for an hour.
func appendNew(p []byte, e entry) []byte {
	const (
		msgNew     = unix.NFNL_SUBSYS_CTNETLINK << 8
		ctaStatus  = 3
		ctaTimeout = 7
	)
	start := len(p)
	p = appendHeader(p, msgNew, unix.NLM_F_CREATE|unix.NLM_F_EXCL, service.FamilyOf(e.client.Addr()))
	p = appendTuple(p, ctaTupleOrig, e.protocol, e.client, e.frontend)
	p = appendTuple(p, ctaTupleReply, e.protocol, e.backend, e.client)
	p = appendAttr(p, ctaStatus, 0, 0, 0, 1<<3|1<<1)
	p = appendAttr(p, ctaTimeout, 0, 0, 3600>>8, 3600&0xff)
	if e.zone != 0 {
		p = appendAttr(p, ctaZone, byte(e.zone>>8), byte(e.zone))
	}
	setLength(p, start)
	return p
}

// list returns the entries of a namespace in words, sorted.
func list(t testing.TB, ns *lab.Namespace) []string {
	t.Helper()
	s, err := openSocket(ns.FD(), dumpBufferSize)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	var all []string
	for _, family := range service.Families() {
		err := s.dump(filter{family: family}, func(f *flow) error {
			e := entry{protocol: f.protocol, frontend: f.frontend, backend: f.backend}
			_, e.client, _ = parseTuple(f.tuple)
			if f.zone != nil {
				e.zone = binary.BigEndian.Uint16(f.zone)
			}
			all = append(all, e.String())
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(all)
	return all
}

// in returns an IPv4 address and port, and what stands for it in tests of IPv6: fd00:: and the same four bytes.
func in(family service.Family, text string) netip.AddrPort {
	ap := netip.MustParseAddrPort(text)
	if family == service.IPv4 {
		return ap
	}
	bytes, v4 := [16]byte{0: 0xfd}, ap.Addr().As4()
	copy(bytes[12:], v4[:])
	return netip.AddrPortFrom(netip.AddrFrom16(bytes), ap.Port())
}
