package recording

import (
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
)

// Recording answers dumps as the netlink.Conn of the recorded namespace did.
type Recording struct{ messages []message }

// message is an answer to a dump.
type message struct {
	typ        uint16 // NFT_MSG_NEWTABLE and so on
	family     uint8
	attributes []byte
}

// headerSize is the size of struct nlmsghdr and struct nfgenmsg, with which a message begins.
const headerSize = unix.NLMSG_HDRLEN + 4

// dump is a request and the type of its answers, with attributes of these: the name of what they describe,
// and those that a recording leaves out, because they depend on the history of the ruleset and on the kernel.
// The name of the table is the attribute 1 of all answers.
type dump struct {
	request, answer uint16
	name            uint16
	left            []uint16
}

// Attributes of linux/netfilter/nf_tables.h that golang.org/x/sys lacks.
const (
	tableHandle = 4  // NFTA_TABLE_HANDLE
	setHandle   = 16 // NFTA_SET_HANDLE
	setType     = 19 // NFTA_SET_TYPE, the implementation, which may be a kernel address (Linux 6.16)
)

// dumps returns the requests in the order of a file.
func dumps() []dump {
	return []dump{
		{unix.NFT_MSG_GETTABLE, unix.NFT_MSG_NEWTABLE, unix.NFTA_TABLE_NAME, []uint16{tableHandle}},
		{unix.NFT_MSG_GETCHAIN, unix.NFT_MSG_NEWCHAIN, unix.NFTA_CHAIN_NAME, []uint16{unix.NFTA_CHAIN_HANDLE}},
		{unix.NFT_MSG_GETSET, unix.NFT_MSG_NEWSET, unix.NFTA_SET_NAME, []uint16{setHandle, setType}},
		{unix.NFT_MSG_GETSETELEM, unix.NFT_MSG_NEWSETELEM, unix.NFTA_SET_ELEM_LIST_SET, nil},
		{unix.NFT_MSG_GETRULE, unix.NFT_MSG_NEWRULE, unix.NFTA_RULE_CHAIN,
			[]uint16{unix.NFTA_RULE_HANDLE, unix.NFTA_RULE_POSITION}},
	}
}

// Open reads a recording.
func Open(file string) (*Recording, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	r := &Recording{}
	for len(b) > 0 {
		n := 0
		if len(b) >= headerSize {
			n = int(binary.NativeEndian.Uint32(b))
		}
		if n < headerSize || n > len(b) {
			return nil, fmt.Errorf("read %s: a message is incomplete", file)
		}
		typ := binary.NativeEndian.Uint16(b[4:]) &^ (unix.NFNL_SUBSYS_NFTABLES << 8)
		r.messages = append(r.messages, message{typ, b[unix.NLMSG_HDRLEN], b[headerSize:n]})
		b = b[min(len(b), aligned(n)):]
	}
	return r, nil
}

// Dump is the method of netlink.Conn: it calls each with the attributes of the answers to a request. Names
// that are empty stand for all.
func (r *Recording) Dump(
	request uint16, family uint8, table, name string, each func(attributes []byte) error,
) error {
	for _, d := range dumps() {
		for _, m := range r.messages {
			if d.request != request || m.typ != d.answer || m.family != family ||
				table != "" && m.text(1) != table || name != "" && m.text(d.name) != name {
				continue
			}
			if err := each(m.attributes); err != nil {
				return err
			}
		}
	}
	return nil
}

// DumpElements is Dump for the elements of a set.
func (r *Recording) DumpElements(family uint8, table, set string, each func(element []byte) error) error {
	return r.Dump(unix.NFT_MSG_GETSETELEM, family, table, set, func(attributes []byte) error {
		return netlink.Elements(attributes, each)
	})
}

// text returns an attribute that is a string.
func (m message) text(attribute uint16) string {
	for typ, v := range netlink.Attrs(m.attributes) {
		if typ == attribute {
			return netlink.String(v)
		}
	}
	return ""
}

func aligned(n int) int { return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }
