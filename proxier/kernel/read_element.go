package kernel

import (
	"bytes"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/nftables"
)

// elements reads the elements of a set.
func (r *reader) elements(id nftables.SetID) error {
	schema := id.Schema()
	tree := schema.Interval && len(schema.Key) == 1
	var ends []interval
	family, name := r.family.Number(), id.Kind.String()
	err := r.conn.DumpElements(family, nftables.TableName, name, func(attributes []byte) error {
		raw := parseElement(attributes)
		if tree {
			ends = append(ends, interval{slices.Clone(raw.key), raw.flags&elementIntervalEnd != 0})
			return nil
		}
		e, ok := r.element(id, raw)
		if !ok {
			r.broken("set %s has an unexpected element", id.Kind)
			return nil
		}
		r.table.Elements[e.ElementID] = e
		return nil
	})
	if err := uninterrupted(err); err != nil {
		return err
	}
	r.intervals(id, ends)
	return nil
}

// rawElement is an element as the kernel sends it. The slices are parts of the buffer.
type rawElement struct {
	key, keyEnd, data, userdata []byte
	chain, counter              []byte
	code, flags                 uint32
}

func parseElement(attributes []byte) rawElement {
	var e rawElement
	for typ, v := range netlink.Attrs(attributes) {
		switch typ {
		case unix.NFTA_SET_ELEM_KEY:
			e.key = dataValue(v)
		case elementKeyEnd:
			e.keyEnd = dataValue(v)
		case unix.NFTA_SET_ELEM_FLAGS:
			e.flags = netlink.Uint32(v)
		case unix.NFTA_SET_ELEM_USERDATA:
			e.userdata = v
		case unix.NFTA_SET_ELEM_EXPR:
			e.counter = counterOf(v)
		case unix.NFTA_SET_ELEM_DATA:
			e.data = dataValue(v)
			e.code, e.chain = parseVerdict(v)
		}
	}
	return e
}

func dataValue(nested []byte) []byte {
	for typ, v := range netlink.Attrs(nested) {
		if typ == unix.NFTA_DATA_VALUE {
			return v
		}
	}
	return nil
}

func parseVerdict(nested []byte) (code uint32, chain []byte) {
	for typ, v := range netlink.Attrs(nested) {
		if typ != unix.NFTA_DATA_VERDICT {
			continue
		}
		for typ, v := range netlink.Attrs(v) {
			switch typ {
			case unix.NFTA_VERDICT_CODE:
				code = netlink.Uint32(v)
			case unix.NFTA_VERDICT_CHAIN:
				chain = v
			}
		}
	}
	return code, chain
}

// element translates an element. It returns false if nftproxy never writes such an element. A verdict other
// than goto becomes a chain without a name, and so differs from the desired one.
func (r *reader) element(id nftables.SetID, raw rawElement) (nftables.Element, bool) {
	e := nftables.Element{ElementID: nftables.ElementID{Set: id}}
	schema, size := id.Schema(), id.KeySize()
	if len(raw.key) != size {
		return e, false
	}
	copy(e.Key[:], raw.key)
	if schema.Interval {
		addr := size - id.Family.AddrSize()
		if len(raw.keyEnd) != size || string(raw.keyEnd[:addr]) != string(raw.key[:addr]) {
			return e, false
		}
		end, more := behind(raw.keyEnd[addr:], 8*id.Family.AddrSize())
		if !more {
			end = nil
		}
		bits, ok := prefixBits(raw.key[addr:], end)
		if !ok {
			return e, false
		}
		e.Bits = uint8(bits)
	}
	copy(e.Data[:], raw.data)
	if schema.Verdict && raw.code == verdictGoto {
		e.Chain = r.name(raw.chain)
	}
	e.Comment = elementComment(raw.userdata)
	return e, true
}

// name returns the name of a chain, as one string for all elements that go to it: there are few chains.
func (r *reader) name(chain []byte) string {
	chain = bytes.TrimRight(chain, "\x00")
	name, ok := r.names[string(chain)]
	if !ok {
		name = string(chain)
		r.names[name] = name
	}
	return name
}
