package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/conntrack"
	"github.com/nftproxy/nftproxy/proxier/netlink"
)

// fillsConntrack makes flows, which the kernel may not evict, until the table of connection tracking is full,
// and deletes them in the end. It deletes all others before, so that none ends meanwhile and makes room. The
// limit is that of the machine, whatever the namespace.
func fillsConntrack(f *faulty) {
	f.Helper()
	s, err := netlink.Open()
	if err != nil {
		f.Fatal(err)
	}
	deleteAll := func() {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			var w netlink.Writer
			w.Message(unix.NFNL_SUBSYS_CTNETLINK, 2, 0, family) // IPCTNL_MSG_CT_DELETE: all of the family
			f.must(s.Send(&w, func(e *netlink.Error) { f.Fatal(e) }))
		}
	}
	f.undo = append(f.undo, func() { deleteAll(); s.Close() })
	deleteAll()
	usage, err := conntrack.ReadUsage("/proc/sys/net")
	f.must(err)
	if usage.Most > 600_000 {
		f.unable = fmt.Sprintf("the table has room for %d flows here, and to fill it takes too long", usage.Most)
		return
	}
	client := netip.MustParseAddr("100.64.0.1")
	for full := false; !full; {
		var w netlink.Writer
		for range 500 {
			client = client.Next()
			appendFlow(&w, client)
		}
		err := s.Send(&w, func(e *netlink.Error) {
			if full = e.Errno == unix.ENOMEM; !full {
				f.Fatal(e)
			}
		})
		if err != nil {
			f.Fatal(err)
		}
	}
}

// appendFlow appends a message that makes a UDP flow of a client, with the numbers of
// linux/netfilter/nfnetlink_conntrack.h.
func appendFlow(w *netlink.Writer, client netip.Addr) {
	server, port := []byte{192, 0, 2, 1}, binary.BigEndian.AppendUint16(nil, 9)
	w.Message(unix.NFNL_SUBSYS_CTNETLINK, 0, unix.NLM_F_CREATE|unix.NLM_F_EXCL, unix.AF_INET)
	for direction, ends := range [][2][]byte{{client.AsSlice(), server}, {server, client.AsSlice()}} {
		tuple := w.Nest(uint16(1 + direction)) // CTA_TUPLE_ORIG, CTA_TUPLE_REPLY
		addrs := w.Nest(1)
		w.Bytes(1, ends[0])
		w.Bytes(2, ends[1])
		w.EndNest(addrs)
		protocol := w.Nest(2)
		w.U8(1, unix.IPPROTO_UDP)
		w.Bytes(2, port)
		w.Bytes(3, port)
		w.EndNest(protocol)
		w.EndNest(tuple)
	}
	w.U32(3, 1<<3|1<<2|1<<1) // CTA_STATUS: IPS_CONFIRMED, IPS_ASSURED, IPS_SEEN_REPLY
	w.U32(7, 3600)           // CTA_TIMEOUT
}
