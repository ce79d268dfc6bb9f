package netlink

import (
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// The tests use one map: IPv4 address -> address and port.
const (
	testFamily = unix.NFPROTO_IPV4
	testTable  = "t"
	testSet    = "m"
)

func putTable(b *Batch) {
	b.Message(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, testFamily)
	b.String(unix.NFTA_TABLE_NAME, testTable)
}

func putSet(b *Batch) {
	b.Message(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, testFamily)
	b.String(unix.NFTA_SET_TABLE, testTable)
	b.String(unix.NFTA_SET_NAME, testSet)
	b.U32(unix.NFTA_SET_ID, 1)
	b.U32(unix.NFTA_SET_FLAGS, unix.NFT_SET_MAP)
	b.U32(unix.NFTA_SET_KEY_TYPE, 0)
	b.U32(unix.NFTA_SET_KEY_LEN, 4)
	b.U32(unix.NFTA_SET_DATA_TYPE, 0)
	b.U32(unix.NFTA_SET_DATA_LEN, 8)
	description := b.Nest(unix.NFTA_SET_DESC)
	b.U32(unix.NFTA_SET_DESC_SIZE, 200_000) // a fixed size, so that dumps neither miss nor repeat elements
	b.EndNest(description)
}

// putElements appends the keys from from to to, without to, in as few messages as possible. It returns where
// each element starts.
func putElements(b *Batch, msgType, flags uint16, from, to uint32) (offsets []int) {
	const room = 65535 - 64
	for key := from; key < to; {
		b.Message(msgType, flags, testFamily)
		b.String(unix.NFTA_SET_ELEM_LIST_TABLE, testTable)
		b.String(unix.NFTA_SET_ELEM_LIST_SET, testSet)
		list := b.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		for ; key < to && b.Size()-list < room; key++ {
			offsets = append(offsets, b.Offset())
			element := b.Nest(unix.NFTA_LIST_ELEM)
			k := b.Nest(unix.NFTA_SET_ELEM_KEY)
			b.U32(unix.NFTA_DATA_VALUE, key)
			b.EndNest(k)
			if msgType == unix.NFT_MSG_NEWSETELEM {
				d := b.Nest(unix.NFTA_SET_ELEM_DATA)
				b.U64(unix.NFTA_DATA_VALUE, uint64(key)<<16)
				b.EndNest(d)
			}
			b.EndNest(element)
		}
		b.EndNest(list)
	}
	return offsets
}

// rawMessage returns message i of the batch with its header, so that an Error.Offset is an index into it.
func rawMessage(b *Batch, i int) []byte {
	if i+1 < len(b.starts) {
		return b.buf[b.starts[i]:b.starts[i+1]]
	}
	return b.buf[b.starts[i]:]
}

func elementKey(element []byte) (key uint32) {
	for typ, v := range Attrs(element) {
		if typ != unix.NFTA_SET_ELEM_KEY {
			continue
		}
		for typ, v := range Attrs(v) {
			if typ == unix.NFTA_DATA_VALUE {
				key = binary.BigEndian.Uint32(v)
			}
		}
	}
	return key
}

func TestBatchBytes(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Fatal("the expected bytes are those of a little-endian machine")
	}
	var b Batch
	b.Begin()
	b.Message(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, unix.NFPROTO_IPV6)
	b.String(1, "abc")
	nest := b.Nest(2)
	b.U8(3, 0x11)
	b.U16(4, 0x2233)
	b.EndNest(nest)
	b.Message(unix.NFT_MSG_DELTABLE, 0, unix.NFPROTO_IPV4)
	b.U32(5, 0x44556677)
	b.U64(6, 0x8899aabbccddeeff)
	b.Bytes(7, []byte{1})

	want := []string{
		"14000000" + "1000" + "0100" + "e8030000" + "00000000" + "0000000a",
		"30000000" + "000a" + "0104" + "e9030000" + "00000000" + "0a000000" +
			"08000100" + "61626300" + "14000280" + "05000300" + "11000000" + "06000400" + "22330000",
		"30000000" + "020a" + "0500" + "ea030000" + "00000000" + "02000000" +
			"08000500" + "44556677" + "0c000600" + "8899aabbccddeeff" + "05000700" + "01000000",
		"14000000" + "1100" + "0100" + "eb030000" + "00000000" + "0000000a",
	}
	for _, commit := range []bool{true, false, true} {
		n := len(want)
		if !commit {
			n--
		}
		got := hex.EncodeToString(b.seal(1000, commit))
		if diff := cmp.Diff(strings.Join(want[:n], ""), got); diff != "" {
			t.Errorf("commit %v (-want +got):\n%s", commit, diff)
		}
	}
	if got, want := hex.EncodeToString(rawMessage(&b, 0)), want[1]; got != want {
		t.Errorf("message 0 is\n%s, want\n%s", got, want)
	}
	if b.Len() != 2 {
		t.Errorf("%d messages, want 2", b.Len())
	}
}

func TestBatchTooLong(t *testing.T) {
	for name, put := range map[string]func(*Batch){
		"value": func(b *Batch) { b.Bytes(1, make([]byte, 65532)) },
		"nest": func(b *Batch) {
			n := b.Nest(2)
			b.Bytes(1, make([]byte, 40000))
			b.Bytes(1, make([]byte, 40000))
			b.EndNest(n)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := testConn(t)
			var b Batch
			putTable(&b)
			put(&b)
			err := c.Commit(&b)
			if err == nil || !strings.Contains(err.Error(), "longer than 65535") {
				t.Errorf("commit: %v", err)
			}
			b.Begin()
			putTable(&b)
			if err := c.Commit(&b); err != nil {
				t.Errorf("commit of the next batch: %v", err)
			}
		})
	}
}

func TestBatchAllocations(t *testing.T) {
	var b Batch
	fill := func() {
		b.Begin()
		for key := range uint32(1000) {
			b.Message(unix.NFT_MSG_NEWSETELEM, 0, testFamily)
			b.String(unix.NFTA_SET_ELEM_LIST_SET, testSet)
			n := b.Nest(unix.NFTA_SET_ELEM_KEY)
			b.U32(unix.NFTA_DATA_VALUE, key)
			b.EndNest(n)
		}
	}
	fill()
	if n := testing.AllocsPerRun(10, fill); n != 0 {
		t.Errorf("%v allocations to fill a batch again, want none", n)
	}
}
