package kernel

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/nftables"
)

// elementListLimit is the size of a list of elements at which the next element starts another message: an
// attribute holds 65,535 bytes, and an element has much less than 1,024.
const elementListLimit = 64<<10 - 1024

// Constants of linux/netfilter/nf_tables.h that golang.org/x/sys lacks, and libnftnl's number for the user
// data of an element that is its comment.
const (
	elementKeyEnd       = 10 // NFTA_SET_ELEM_KEY_END
	elementIntervalEnd  = 1  // NFT_SET_ELEM_INTERVAL_END
	verdictGoto         = 0xfffffffc
	udataElementComment = 0
)

// position is the place of an element in a batch, to name it when the kernel refuses it.
type position struct {
	message, offset int32
}

// appendElements appends the messages that add or delete elements: one for each run of elements of the same
// set, or more where they do not fit into one. The flag NLM_F_ECHO is for elements of the map services. It
// returns the position of each element.
func appendElements(b *netlink.Batch, msgType, flags uint16, elements []nftables.Element) []position {
	at := make([]position, len(elements))
	var list int
	for i := range elements {
		e := &elements[i]
		if i == 0 || e.Set != elements[i-1].Set || b.Size()-list > elementListLimit {
			if i > 0 {
				b.EndNest(list)
			}
			own := flags
			if e.Set.Kind != nftables.Services {
				own &^= unix.NLM_F_ECHO
			}
			b.Message(msgType, own, e.Set.Family.Number())
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
	schema, size := e.Set.Schema(), e.Set.KeySize()
	key := e.Key[:size]
	if schema.Interval && len(schema.Key) == 1 {
		appendInterval(b, key, int(e.Bits))
		return
	}
	elem := b.Nest(unix.NFTA_LIST_ELEM)
	appendData(b, unix.NFTA_SET_ELEM_KEY, key)
	if schema.Interval {
		addr := e.Set.Family.AddrSize()
		last := lastAddr(key[size-addr:], int(e.Bits))
		appendData(b, elementKeyEnd, append(slices.Clone(key[:size-addr]), last...))
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
