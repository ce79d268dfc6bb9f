package kernel

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/nftables"
)

// appendInterval appends a prefix as the kernel's red-black tree expects it: its first address and, as the
// end, the address that follows it, if there is one.
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

// prefixBits returns the length of the prefix from first to the address before end, and false if this is not
// a prefix. A nil end means that the prefix includes the last address.
func prefixBits(first, end []byte) (int, bool) {
	for bits := 0; bits <= 8*len(first); bits++ {
		behind, ok := behind(first, bits)
		if ok == (end != nil) && slices.Equal(behind, end) && isMasked(first, bits) {
			return bits, true
		}
	}
	return 0, false
}

// isMasked reports whether all bits of an address behind the prefix are zero.
func isMasked(addr []byte, bits int) bool {
	for i, v := range addr {
		if n := bits - 8*i; n <= 0 && v != 0 || n > 0 && n < 8 && v<<n != 0 {
			return false
		}
	}
	return true
}

// interval is the start or the end of an interval in the kernel's tree.
type interval struct {
	addr []byte
	end  bool
}

// intervals makes prefixes of starts and ends. It ignores the end at address zero that nft adds, which ends
// nothing.
func (r *reader) intervals(id nftables.SetID, ends []interval) {
	slices.SortFunc(ends, func(a, b interval) int {
		if c := slices.Compare(a.addr, b.addr); c != 0 || a.end == b.end {
			return c
		}
		if a.end {
			return -1
		}
		return 1
	})
	for i, e := range ends {
		if e.end {
			continue
		}
		var end []byte
		if i+1 < len(ends) {
			if end = ends[i+1].addr; !ends[i+1].end {
				r.broken("set %s has an interval without an end", id.Kind)
				return
			}
		}
		bits, ok := prefixBits(e.addr, end)
		if !ok {
			r.broken("set %s has an interval that is not a prefix", id.Kind)
			return
		}
		elem := nftables.Element{ElementID: nftables.ElementID{Set: id, Bits: uint8(bits)}}
		copy(elem.Key[:], e.addr)
		r.table.Elements[elem.ElementID] = elem
	}
}
