package recording

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
)

// Write records the tables of this name, of the families ip and ip6, in the namespace of conn. It fails if
// there is none.
func Write(file, table string, conn *netlink.Conn) error {
	var content bytes.Buffer
	z, _ := gzip.NewWriterLevel(&content, gzip.BestCompression) // fails for other levels only
	total := 0
	for _, family := range []uint8{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6} {
		for _, d := range dumps() {
			messages, err := d.read(conn, family, table)
			if err != nil {
				return fmt.Errorf("record table %s: %w", table, err)
			}
			for _, m := range messages {
				_, _ = z.Write(m.encode()) // into memory
			}
			total += len(messages)
		}
	}
	if total == 0 {
		return fmt.Errorf("record table %s: there is none", table)
	}
	_ = z.Close()
	return os.WriteFile(file, content.Bytes(), 0o644)
}

// read returns the answers for a table, ordered by name. Rules of one chain keep their order.
func (d dump) read(conn *netlink.Conn, family uint8, table string) (out []message, err error) {
	if d.request == unix.NFT_MSG_GETSETELEM {
		return readElements(conn, family, table)
	}
	err = conn.Dump(d.request, family, "", "", func(attributes []byte) error {
		m := message{d.answer, family, without(attributes, d.left)}
		if m.text(1) == table {
			out = append(out, m)
		}
		return nil
	})
	slices.SortStableFunc(out, func(a, b message) int { return cmp.Compare(a.text(d.name), b.text(d.name)) })
	return out, err
}

// without copies attributes, except those of some types.
func without(attributes []byte, types []uint16) (out []byte) {
	for len(attributes) >= unix.SizeofNlAttr {
		n := min(aligned(int(binary.NativeEndian.Uint16(attributes))), len(attributes))
		typ := binary.NativeEndian.Uint16(attributes[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		if !slices.Contains(types, typ) {
			out = append(out, attributes[:n]...)
		}
		attributes = attributes[n:]
	}
	return out
}

// readElements returns one message for each set of a table, with its elements in the order of their bytes.
func readElements(conn *netlink.Conn, family uint8, table string) (out []message, err error) {
	var names []string
	err = conn.Dump(unix.NFT_MSG_GETSET, family, table, "", func(attributes []byte) error {
		names = append(names, message{attributes: attributes}.text(unix.NFTA_SET_NAME))
		return nil
	})
	slices.Sort(names)
	for _, name := range names {
		var elements [][]byte
		if err == nil {
			err = conn.DumpElements(family, table, name, func(element []byte) error {
				elements = append(elements, bytes.Clone(element))
				return nil
			})
		}
		slices.SortFunc(elements, bytes.Compare)
		var list []byte
		for _, e := range elements {
			list = appendAttribute(list, unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, e)
		}
		if len(list) > math.MaxUint16-unix.SizeofNlAttr {
			return nil, fmt.Errorf("set %s: its elements do not fit into one message", name)
		}
		attributes := appendAttribute(nil, unix.NFTA_SET_ELEM_LIST_TABLE, append([]byte(table), 0))
		attributes = appendAttribute(attributes, unix.NFTA_SET_ELEM_LIST_SET, append([]byte(name), 0))
		attributes = appendAttribute(attributes, unix.NFTA_SET_ELEM_LIST_ELEMENTS|unix.NLA_F_NESTED, list)
		out = append(out, message{unix.NFT_MSG_NEWSETELEM, family, attributes})
	}
	return out, err
}

func appendAttribute(b []byte, typ uint16, value []byte) []byte {
	n := unix.SizeofNlAttr + len(value)
	b = binary.NativeEndian.AppendUint16(b, uint16(n))
	b = append(binary.NativeEndian.AppendUint16(b, typ), value...)
	return append(b, make([]byte, aligned(n)-n)...)
}

// encode returns the message with its headers, which have no flags, sequence number and port, and padding.
func (m message) encode() []byte {
	n := headerSize + len(m.attributes)
	b := binary.NativeEndian.AppendUint32(nil, uint32(n))
	b = binary.NativeEndian.AppendUint16(b, unix.NFNL_SUBSYS_NFTABLES<<8|m.typ)
	b = append(b, make([]byte, unix.NLMSG_HDRLEN-len(b))...)
	b = append(b, m.family, unix.NFNETLINK_V0, 0, 0)
	b = append(b, m.attributes...)
	return append(b, make([]byte, aligned(n)-n)...)
}
