package kernel

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// setConcat is NFT_SET_CONCAT of linux/netfilter/nf_tables.h, which golang.org/x/sys lacks.
const setConcat = 0x80

// dataVerdict is the type of a verdict map's data, NFT_DATA_VERDICT.
const dataVerdict = 0xffffff00

// layout is the kernel's description of a set: two sets with the same layout can hold the same elements, and
// the same rules can use them.
type layout struct {
	flags    uint32
	keySize  uint32
	dataType uint32 // 0: a set
	dataSize uint32
}

func layoutOf(id nftables.SetID) layout {
	schema := id.Schema()
	l := layout{keySize: uint32(id.KeySize()), dataSize: uint32(id.DataSize())}
	switch {
	case schema.Verdict:
		l.flags, l.dataType = unix.NFT_SET_MAP, dataVerdict
	case schema.Data != nil:
		l.flags, l.dataType = unix.NFT_SET_MAP, typeNumber(schema.Data, id.Family)
	}
	if schema.Dynamic {
		l.flags |= unix.NFT_SET_TIMEOUT | unix.NFT_SET_EVAL
	}
	if schema.Interval {
		l.flags |= unix.NFT_SET_INTERVAL
		if len(schema.Key) > 1 {
			l.flags |= setConcat
		}
	}
	return l
}

// appendSet appends the message that creates a set. id is the number of the set within the batch.
func appendSet(b *netlink.Batch, table string, s nftables.Set, id uint32) {
	l, schema := layoutOf(s.ID), s.ID.Schema()
	b.Message(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, s.ID.Family.Number())
	b.String(unix.NFTA_SET_TABLE, table)
	b.String(unix.NFTA_SET_NAME, s.Name)
	b.U32(unix.NFTA_SET_FLAGS, l.flags)
	b.U32(unix.NFTA_SET_KEY_TYPE, typeNumber(schema.Key, s.ID.Family))
	b.U32(unix.NFTA_SET_KEY_LEN, l.keySize)
	if l.dataType != 0 {
		b.U32(unix.NFTA_SET_DATA_TYPE, l.dataType)
		b.U32(unix.NFTA_SET_DATA_LEN, l.dataSize)
	}
	b.U32(unix.NFTA_SET_ID, id)
	desc := b.Nest(unix.NFTA_SET_DESC)
	if schema.Dynamic {
		b.U32(unix.NFTA_SET_DESC_SIZE, nftables.AffinitySize)
	}
	if l.flags&setConcat != 0 {
		appendColumns(b, s.ID.Family, schema.Key)
	}
	b.EndNest(desc)
	b.Bytes(unix.NFTA_SET_USERDATA, setUserdata(s.ID))
	if s.Counter {
		expression := b.Nest(setExpr)
		b.String(unix.NFTA_EXPR_NAME, "counter")
		b.EndNest(b.Nest(unix.NFTA_EXPR_DATA))
		b.EndNest(expression)
	}
}

// setExpr is NFTA_SET_EXPR (Linux 5.7), which golang.org/x/sys lacks: the statement that each element of a
// set gets.
const setExpr = 17

// appendDeleteSet appends the message that deletes a set with its elements.
func appendDeleteSet(b *netlink.Batch, s nftables.Set) {
	b.Message(unix.NFT_MSG_DELSET, 0, s.ID.Family.Number())
	b.String(unix.NFTA_SET_TABLE, nftables.TableName)
	b.String(unix.NFTA_SET_NAME, s.Name)
}

// Attributes of set descriptions that golang.org/x/sys lacks.
const (
	descConcat   = 2 // NFTA_SET_DESC_CONCAT
	concatField  = 1 // NFTA_LIST_ELEM
	fieldLen     = 1 // NFTA_SET_FIELD_LEN
	bytesOfProto = 1
	bytesOfPort  = 2
)

// appendColumns describes the fields of a concatenation with intervals.
func appendColumns(b *netlink.Batch, f service.Family, columns []nftables.Column) {
	concat := b.Nest(descConcat)
	for _, c := range columns {
		size := c.Size(f)
		switch c {
		case nftables.ColumnProto:
			size = bytesOfProto
		case nftables.ColumnPort:
			size = bytesOfPort
		}
		field := b.Nest(concatField)
		b.U32(fieldLen, uint32(size))
		b.EndNest(field)
	}
	b.EndNest(concat)
}

// typeNumber returns nft's number for the type of concatenated columns: 6 bits each, by nftables' enum
// datatypes. The kernel only stores it, for nft to read.
func typeNumber(columns []nftables.Column, f service.Family) uint32 {
	var n uint32
	for _, c := range columns {
		n <<= 6
		switch c {
		case nftables.ColumnAddr:
			n |= map[service.Family]uint32{service.IPv4: 7, service.IPv6: 8}[f]
		case nftables.ColumnProto:
			n |= 12
		case nftables.ColumnPort:
			n |= 13
		case nftables.ColumnIndex:
			n |= 4
		case nftables.ColumnClass:
			n |= 23
		}
	}
	return n
}

// Kinds of user data of a set, libnftnl's enum nftnl_udata_set_types.
const (
	udataKeyByteOrder  = 0
	udataDataByteOrder = 1
	udataKeyTypeof     = 3
	udataDataTypeof    = 4
	udataDataInterval  = 6
)

// setUserdata returns what nft 1.0 stores with a set in order to list it: byte orders and, where a type has
// no name, the expressions whose types the columns have.
func setUserdata(id nftables.SetID) []byte {
	schema := id.Schema()
	isMap := schema.Verdict || schema.Data != nil
	out := udata32(nil, udataKeyByteOrder, byteOrder(schema.Key))
	if isMap {
		out = udata32(out, udataDataByteOrder, byteOrder(schema.Data))
	}
	for _, t := range []struct {
		typ     byte
		columns []nftables.Column
	}{{udataKeyTypeof, schema.Key}, {udataDataTypeof, schema.Data}} {
		switch {
		case schema.Indexed():
			out = udata(out, t.typ, columnExprs(t.columns, id.Family))
		case len(t.columns) > 1:
			out = udata(out, t.typ, concatExpr())
		}
	}
	if isMap {
		out = udata32(out, udataDataInterval, 0)
	}
	return out
}

// byteOrder returns nft's number for the byte order: 2 is big endian, 1 the host's, 0 mixed or none.
func byteOrder(columns []nftables.Column) uint32 {
	if len(columns) != 1 {
		return 0
	}
	if columns[0] == nftables.ColumnAddr {
		return 2
	}
	return 1
}

// columnExprs returns expressions of the types of the columns.
func columnExprs(columns []nftables.Column, f service.Family) []byte {
	var exprs [][]byte
	for _, c := range columns {
		switch c {
		case nftables.ColumnAddr:
			exprs = append(exprs, payloadAddr(f))
		case nftables.ColumnProto:
			exprs = append(exprs, typeofExpr(exprMeta, metaKeyL4Proto))
		case nftables.ColumnPort:
			exprs = append(exprs, typeofExpr(exprPayload, headerTransport, fieldDport))
		case nftables.ColumnIndex:
			exprs = append(exprs, typeofExpr(exprNumgen, unix.NFT_NG_RANDOM, nftables.SlotModulus, 0))
		case nftables.ColumnClass:
			exprs = append(exprs, typeofExpr(exprMeta, metaKeyPriority))
		}
	}
	if len(exprs) == 1 {
		return exprs[0]
	}
	return concatExpr(exprs...)
}

// udata appends a value with its type and length, in libnftnl's format of user data.
func udata(out []byte, typ byte, value []byte) []byte {
	return append(append(out, typ, byte(len(value))), value...)
}

func udata32(out []byte, typ byte, v uint32) []byte {
	return udata(out, typ, binary.NativeEndian.AppendUint32(nil, v))
}

// Numbers of nft's expressions and header fields, as nft stores them for typeof.
const (
	exprPayload, exprMeta, exprConcat, exprNumgen = 7, 9, 13, 23
	headerTransport, headerIP, headerIP6          = 11, 12, 13
	fieldIPDaddr, fieldIP6Daddr, fieldDport       = 12, 9, 2
	metaKeyPriority, metaKeyL4Proto               = 2, 16
)

// typeofExpr is an expression with its parameters, each a 32-bit number.
func typeofExpr(kind uint32, params ...uint32) []byte {
	var data []byte
	for i, p := range params {
		data = udata32(data, byte(i), p)
	}
	return udata(udata32(nil, 0, kind), 1, data)
}

func payloadAddr(f service.Family) []byte {
	if f == service.IPv4 {
		return typeofExpr(exprPayload, headerIP, fieldIPDaddr)
	}
	return typeofExpr(exprPayload, headerIP6, fieldIP6Daddr)
}

func concatExpr(parts ...[]byte) []byte {
	var data []byte
	for i, p := range parts {
		data = udata(data, byte(i), p)
	}
	return udata(udata32(nil, 0, exprConcat), 1, data)
}
