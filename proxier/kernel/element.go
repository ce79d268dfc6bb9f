package kernel

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/nftables"
)

// elementListLimit is how long a list of elements may get before the next one
// is appended: an attribute holds 65,535 bytes and an element far less than 1,024.
const elementListLimit = 64<<10 - 1024

// Constants of linux/netfilter/nf_tables.h that golang.org/x/sys lacks, and
// libnftnl's kind of an element's user data that is a comment.
const (
	elementKeyEnd       = 10 // NFTA_SET_ELEM_KEY_END
	elementIntervalEnd  = 1  // NFT_SET_ELEM_INTERVAL_END
	verdictGoto         = 0xfffffffc
	udataElementComment = 0
)

// position is where an element stands in a batch, to name it when the kernel refuses it.
type position struct {
	message, offset int32
}

// appendElements appends the messages that add or delete elements: one for each
// run of elements of the same set, or more where they do not fit. It returns where each
// of the elements is.
func appendElements(b *netlink.Batch, msgType uint16, elements []nftables.Element) []position {
	at := make([]position, len(elements))
	flags := uint16(0)
	if msgType == unix.NFT_MSG_NEWSETELEM {
		flags = unix.NLM_F_CREATE | unix.NLM_F_EXCL
	}
	var list int
	for i := range elements {
		e := &elements[i]
		if i == 0 || e.Set != elements[i-1].Set || b.Size()-list > elementListLimit {
			if i > 0 {
				b.EndNest(list)
			}
			b.Message(msgType, flags, e.Set.Family.Number())
			b.String(unix.NFTA_SET_ELEM_LIST_TABLE, nftables.TableName)
			b.String(unix.NFTA_SET_ELEM_LIST_SET, e.Set.Kind.String())
			list = b.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		}
		at[i] = position{int32(b.Len() - 1), int32(b.Offset())}
		appendElement(b, e)
	}
	if len(elements) > 0 {
		b.EndNest(list)
	}
	return at
}

func appendElement(b *netlink.Batch, e *nftables.Element) {
	schema, size := e.Set.Kind.Schema(), e.Set.KeySize()
	key := e.Key[:size]
	if schema.Interval && len(schema.Key) == 1 {
		appendInterval(b, key, int(e.Bits))
		return
	}
	elem := b.Nest(unix.NFTA_LIST_ELEM)
	appendData(b, unix.NFTA_SET_ELEM_KEY, key)
	if schema.Interval {
		addr := e.Set.Family.AddrSize()
		appendData(b, elementKeyEnd, append(slices.Clone(key[:size-addr]), lastAddr(key[size-addr:], int(e.Bits))...))
	}
	switch {
	case schema.Verdict:
		appendGoto(b, e.Chain)
	case schema.Data != nil:
		appendData(b, unix.NFTA_SET_ELEM_DATA, e.Data[:e.Set.DataSize()])
	}
	if e.Comment != "" {
		b.Bytes(unix.NFTA_SET_ELEM_USERDATA, udata(nil, udataElementComment, append([]byte(e.Comment), 0)))
	}
	b.EndNest(elem)
}

func appendData(b *netlink.Batch, typ uint16, value []byte) {
	data := b.Nest(typ)
	b.Bytes(unix.NFTA_DATA_VALUE, value)
	b.EndNest(data)
}

func appendGoto(b *netlink.Batch, chain string) {
	data := b.Nest(unix.NFTA_SET_ELEM_DATA)
	verdict := b.Nest(unix.NFTA_DATA_VERDICT)
	b.U32(unix.NFTA_VERDICT_CODE, verdictGoto)
	b.String(unix.NFTA_VERDICT_CHAIN, chain)
	b.EndNest(verdict)
	b.EndNest(data)
}

// appendInterval appends a prefix as the kernel's red-black tree wants it: its
// first address, and the first one behind it as the end, if there is one.
func appendInterval(b *netlink.Batch, first []byte, bits int) {
	elem := b.Nest(unix.NFTA_LIST_ELEM)
	appendData(b, unix.NFTA_SET_ELEM_KEY, first)
	b.EndNest(elem)
	if end, ok := behind(first, bits); ok {
		elem = b.Nest(unix.NFTA_LIST_ELEM)
		appendData(b, unix.NFTA_SET_ELEM_KEY, end)
		b.U32(unix.NFTA_SET_ELEM_FLAGS, elementIntervalEnd)
		b.EndNest(elem)
	}
}

// lastAddr returns the last address of a prefix.
func lastAddr(first []byte, bits int) []byte {
	last := slices.Clone(first)
	for i := range last {
		if n := bits - 8*i; n <= 0 {
			last[i] = 0xff
		} else if n < 8 {
			last[i] |= 0xff >> n
		}
	}
	return last
}

// behind returns the address that follows a prefix; the last prefix has none.
func behind(first []byte, bits int) ([]byte, bool) {
	end := lastAddr(first, bits)
	for i := len(end) - 1; i >= 0; i-- {
		end[i]++
		if end[i] != 0 {
			return end, true
		}
	}
	return nil, false
}

// prefixBits returns the length of the prefix from first to the address before
// end, which is nil for the last one, if it is a prefix.
func prefixBits(first, end []byte) (int, bool) {
	for bits := 0; bits <= 8*len(first); bits++ {
		behind, ok := behind(first, bits)
		if ok == (end != nil) && slices.Equal(behind, end) && isMasked(first, bits) {
			return bits, true
		}
	}
	return 0, false
}

func isMasked(addr []byte, bits int) bool {
	for i, v := range addr {
		if n := bits - 8*i; n <= 0 && v != 0 || n > 0 && n < 8 && v<<n != 0 {
			return false
		}
	}
	return true
}

// elementComment returns the comment in an element's user data.
func elementComment(userdata []byte) string {
	for len(userdata) >= 2 && len(userdata) >= 2+int(userdata[1]) {
		if userdata[0] == udataElementComment {
			return netlink.String(userdata[2 : 2+int(userdata[1])])
		}
		userdata = userdata[2+int(userdata[1]):]
	}
	return ""
}
