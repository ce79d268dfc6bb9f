package bytecode

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"sort"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
)

// Values of linux/netfilter/nf_tables.h that golang.org/x/sys lacks.
const (
	setConcat     = 0x80 // NFT_SET_CONCAT
	descConcat    = 2    // NFTA_SET_DESC_CONCAT
	fieldLen      = 1    // NFTA_SET_FIELD_LEN
	elementKeyEnd = 10   // NFTA_SET_ELEM_KEY_END
	elementExprs  = 11   // NFTA_SET_ELEM_EXPRESSIONS
	dataVerdict   = 0xffffff00
)

// Set is a set or a map with its elements.
type Set struct {
	Name              string
	table             *Table
	flags             uint32
	keySize, dataSize int
	fields            []int // sizes of the parts of a key of concatenated ranges, each padded to 4 bytes
	verdicts          bool
	timeout           time.Duration // of elements without one of their own
	exact             map[string]*element
	list              []*element // all; those of intervals in order
	candidates        []string   // see possible
}

// element is an element of a set. Its key is the first one of a range.
type element struct {
	key, last []byte // last: of a concatenated range
	end       bool   // the key is the first one after an interval
	data      []byte
	verdict   *verdict
}

func (t *Table) addSet(a map[uint16][]byte) error {
	s := &Set{
		Name: netlink.String(a[unix.NFTA_SET_NAME]), table: t, exact: map[string]*element{},
		flags:    netlink.Uint32(a[unix.NFTA_SET_FLAGS]),
		keySize:  int(netlink.Uint32(a[unix.NFTA_SET_KEY_LEN])),
		dataSize: int(netlink.Uint32(a[unix.NFTA_SET_DATA_LEN])),
		verdicts: netlink.Uint32(a[unix.NFTA_SET_DATA_TYPE]) == dataVerdict,
	}
	if b := a[unix.NFTA_SET_TIMEOUT]; len(b) == 8 {
		s.timeout = time.Duration(binary.BigEndian.Uint64(b)) * time.Millisecond
	}
	known := uint32(unix.NFT_SET_ANONYMOUS | unix.NFT_SET_CONSTANT | unix.NFT_SET_INTERVAL | unix.NFT_SET_MAP |
		unix.NFT_SET_TIMEOUT | unix.NFT_SET_EVAL | setConcat)
	if s.flags&^known != 0 {
		return fmt.Errorf("set %s: flags %#x are not known", s.Name, s.flags)
	}
	for _, f := range netlink.Attrs(attrs(a[unix.NFTA_SET_DESC])[descConcat]) {
		s.fields = append(s.fields, int(netlink.Uint32(attrs(f)[fieldLen])))
	}
	t.Sets[s.Name] = s
	return nil
}

func (s *Set) dynamic() bool { return s.flags&unix.NFT_SET_EVAL != 0 }

// add adds an element. Those of a dynamic set are left out: a packet may meet any.
func (s *Set) add(a map[uint16][]byte) error {
	if s.dynamic() {
		return nil
	}
	for _, typ := range []uint16{unix.NFTA_SET_ELEM_OBJREF, unix.NFTA_SET_ELEM_TIMEOUT, elementExprs} {
		if _, has := a[typ]; has {
			return fmt.Errorf("set %s: attribute %d of an element is not known", s.Name, typ)
		}
	}
	if e, has := a[unix.NFTA_SET_ELEM_EXPR]; has {
		if name := netlink.String(attrs(e)[unix.NFTA_EXPR_NAME]); name != "counter" {
			return fmt.Errorf("set %s: the expression %s of an element is not known", s.Name, name)
		}
	}
	flags := netlink.Uint32(a[unix.NFTA_SET_ELEM_FLAGS])
	e := &element{key: value(a[unix.NFTA_SET_ELEM_KEY]), end: flags&unix.NFT_SET_ELEM_INTERVAL_END != 0}
	if flags&^unix.NFT_SET_ELEM_INTERVAL_END != 0 || len(e.key) != s.keySize {
		return fmt.Errorf("set %s: an element with flags %#x and a key of %d bytes is not known",
			s.Name, flags, len(e.key))
	}
	if last, has := a[elementKeyEnd]; has {
		e.last = value(last)
	} else if s.flags&setConcat != 0 {
		e.last = e.key
	}
	if data, has := a[unix.NFTA_SET_ELEM_DATA]; has {
		nested := attrs(data)
		e.data = bytes.Clone(nested[unix.NFTA_DATA_VALUE])
		if v, has := nested[unix.NFTA_DATA_VERDICT]; has {
			var err error
			if e.verdict, err = s.table.verdict(v); err != nil {
				return fmt.Errorf("set %s: %w", s.Name, err)
			}
		}
	}
	s.list = append(s.list, e)
	s.exact[string(e.key)] = e
	return nil
}

// finish sorts the elements. The end of an interval comes before the next one, which may begin there.
func (s *Set) finish() {
	slices.SortStableFunc(s.list, func(x, y *element) int {
		if c := bytes.Compare(x.key, y.key); c != 0 || x.end == y.end {
			return c
		}
		if x.end {
			return -1
		}
		return 1
	})
}

// find returns the element for a key, or nil.
func (s *Set) find(key []byte) *element {
	switch {
	case s.flags&unix.NFT_SET_INTERVAL == 0:
		return s.exact[string(key)]
	case s.flags&setConcat != 0:
		for _, e := range s.list {
			if s.covers(e, key) {
				return e
			}
		}
		return nil
	}
	i := sort.Search(len(s.list), func(i int) bool { return bytes.Compare(s.list[i].key, key) > 0 })
	if i == 0 || s.list[i-1].end {
		return nil
	}
	return s.list[i-1]
}

// covers reports whether each part of the key is in the range of the element.
func (s *Set) covers(e *element, key []byte) bool {
	at := 0
	for _, size := range s.fields {
		part := key[at : at+size]
		if bytes.Compare(part, e.key[at:at+size]) < 0 || bytes.Compare(part, e.last[at:at+size]) > 0 {
			return false
		}
		at += (size + 3) &^ 3
	}
	return true
}

// value returns the value of NFTA_DATA_VALUE.
func value(nested []byte) []byte { return bytes.Clone(attrs(nested)[unix.NFTA_DATA_VALUE]) }
