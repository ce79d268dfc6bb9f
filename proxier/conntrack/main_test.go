package conntrack

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/service"
)

func TestMain(m *testing.M) { lab.Main(m) }

// entry is a flow of the tests: the client sends to the frontend, and the backend answers.
type entry struct {
	protocol                  service.Protocol
	client, frontend, backend netip.AddrPort
	zone                      uint16
	status                    uint32 // besides confirmed and answered
	timeout                   uint32 // in seconds; 0: an hour
	translated                bool   // by a rule, which the kernel notes; otherwise only the answers differ
	state                     uint8  // of TCP and SCTP
}

func (e entry) String() string {
	return fmt.Sprintf("%s %s > %s = %s zone %d", e.protocol, e.client, e.frontend, e.backend, e.zone)
}

// create makes entries in a namespace.
func create(t testing.TB, ns *lab.Namespace, entries []entry) {
	t.Helper()
	s := openSocket(t, ns)
	defer s.Close()
	for part := range slices.Chunk(entries, batchSize) {
		var w netlink.Writer
		for _, e := range part {
			appendNew(&w, e)
		}
		err := s.Send(&w, func(refused *netlink.Error) { t.Fatalf("create flows: %v", refused) })
		if err != nil {
			t.Fatal(err)
		}
	}
}

// openSocket opens a socket in a namespace. The caller closes it.
func openSocket(t testing.TB, ns *lab.Namespace) (s *netlink.Socket) {
	t.Helper()
	err := ns.Do(func() (err error) {
		s, err = netlink.Open()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// cleanIn calls clean in a namespace.
func cleanIn(
	ns *lab.Namespace, family service.Family, stale []service.StaleFlows, filtered bool,
) (deleted int, former []service.Frontend, err error) {
	err = ns.Do(func() (err error) {
		deleted, former, err = clean(context.Background(), family, stale, filtered)
		return err
	})
	return deleted, former, err
}

// appendNew appends the request to make an entry that is confirmed and answered.
func appendNew(w *netlink.Writer, e entry) {
	family := service.FamilyOf(e.client.Addr())
	w.Message(unix.NFNL_SUBSYS_CTNETLINK, msgNew, unix.NLM_F_CREATE|unix.NLM_F_EXCL, family.Number())
	appendTuple(w, ctaTupleOrig, e.protocol, e.client, e.frontend)
	if e.translated {
		appendTuple(w, ctaTupleReply, e.protocol, e.frontend, e.client)
		appendTranslation(w, e.backend)
	} else {
		appendTuple(w, ctaTupleReply, e.protocol, e.backend, e.client)
	}
	w.U32(ctaStatus, 1<<3|1<<1|e.status) // IPS_CONFIRMED, IPS_SEEN_REPLY
	w.U32(ctaTimeout, cmp.Or(e.timeout, 3600))
	if e.state != 0 {
		appendState(w, e.protocol, e.state)
	}
	if e.zone != 0 {
		w.U16(ctaZone, e.zone)
	}
}

// appendTranslation appends the destination to which the kernel translates the flow.
func appendTranslation(w *netlink.Writer, to netip.AddrPort) {
	const (
		ctaNatDst = 13
		minIP4    = 1 // CTA_NAT_V4_MINIP
		proto     = 3 // CTA_NAT_PROTO
		minIP6    = 4 // CTA_NAT_V6_MINIP
		minPort   = 1 // CTA_PROTONAT_PORT_MIN
	)
	nat := w.Nest(ctaNatDst)
	if to.Addr().Is4() {
		w.Bytes(minIP4, to.Addr().AsSlice())
	} else {
		w.Bytes(minIP6, to.Addr().AsSlice())
	}
	port := w.Nest(proto)
	w.U16(minPort, to.Port())
	w.EndNest(port)
	w.EndNest(nat)
}

// appendState appends the state of a TCP connection or an SCTP association.
func appendState(w *netlink.Writer, protocol service.Protocol, state uint8) {
	typ := uint16(1) // CTA_PROTOINFO_TCP
	info := w.Nest(ctaProtoInfo)
	if protocol == service.SCTP {
		typ = 3 // CTA_PROTOINFO_SCTP
	}
	about := w.Nest(typ)
	w.U8(ctaProtoInfoState, state)
	if protocol == service.SCTP {
		const originalTag, replyTag = 2, 3 // CTA_PROTOINFO_SCTP_VTAG_ORIGINAL, ..._REPLY: required
		w.U32(originalTag, 1)
		w.U32(replyTag, 2)
	}
	w.EndNest(about)
	w.EndNest(info)
}

// list returns the entries of a namespace as text, sorted.
func list(t testing.TB, ns *lab.Namespace) []string {
	t.Helper()
	s := openSocket(t, ns)
	defer s.Close()
	var all []string
	for _, family := range service.Families() {
		err := dump(s, filter{family: family}, func(f *flow) error {
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

// in returns an IPv4 address and port or, for IPv6, the address that replaces it: fd00:: and the same four
// bytes.
func in(family service.Family, text string) netip.AddrPort {
	ap := netip.MustParseAddrPort(text)
	if family == service.IPv4 {
		return ap
	}
	bytes, v4 := [16]byte{0: 0xfd}, ap.Addr().As4()
	copy(bytes[12:], v4[:])
	return netip.AddrPortFrom(netip.AddrFrom16(bytes), ap.Port())
}
