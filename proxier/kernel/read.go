package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// readAttempts bounds how often a dump is repeated because another process, perhaps in another table, changed the
// ruleset meanwhile, or because the dump is incomplete.
const readAttempts = 5

// incompletePause is how long the kernel gets to resize a set, longer with each attempt.
const incompletePause = 20 * time.Millisecond

// errIncomplete says that a dump has fewer elements than the kernel counts (Linux 6.16): while it resizes a hash
// table, for a while after a large insert, a walk misses some.
var errIncomplete = errors.New("the dump is incomplete")

// snapshot is the state of our tables at one generation. Of their chains only the names are in tables until compare
// was called.
type snapshot struct {
	generation uint32
	tables     rules.Programmed
	chains     map[service.Family]chains
}

// read reads the tables of the families that are in the kernel.
func (c *Conn) read(families []service.Family) (*snapshot, error) {
	for attempt := 1; ; attempt++ {
		s, err := c.readOnce(families)
		last := attempt == readAttempts
		switch {
		case errors.Is(err, errIncomplete) && !last:
			time.Sleep(time.Duration(attempt) * incompletePause)
			continue
		case errors.Is(err, netlink.ErrInterrupted) && !last:
			continue
		case errors.Is(err, errIncomplete):
			err = nil // the kernel refuses to add an element that it has, and the next sync reads again
		}
		if err == nil {
			c.seen, c.commits = s.generation, 0
		}
		return s, err
	}
}

func (c *Conn) readOnce(families []service.Family) (*snapshot, error) {
	before, err := c.Generation()
	if err != nil {
		return nil, err
	}
	s := &snapshot{generation: before, tables: rules.Programmed{}, chains: map[service.Family]chains{}}
	complete := true
	for _, f := range families {
		r := newReader(c, f)
		found, err := r.readTable()
		if err != nil {
			return nil, fmt.Errorf("read table %s %s: %w", f, nftables.TableName, err)
		}
		if !found {
			continue
		}
		s.tables[f] = r.table
		complete = complete && r.complete
		if s.chains[f], err = r.chains(); err != nil {
			return nil, fmt.Errorf("read chains of table %s %s: %w", f, nftables.TableName, err)
		}
	}
	after, err := c.Generation()
	switch {
	case err == nil && after != before:
		err = netlink.ErrInterrupted
	case err == nil && !complete:
		err = errIncomplete
	}
	return s, err
}

// reader reads one table.
type reader struct {
	conn   *Conn
	family service.Family
	table  *rules.TableState
	names  map[string]string // of chains, each once

	complete bool // the number of elements that were read is the number that the kernel counts
}

func newReader(c *Conn, f service.Family) *reader {
	return &reader{conn: c, family: f, table: rules.NewTableState(), names: map[string]string{}, complete: true}
}

// readTable reads the table's sets and elements, if there is a table.
func (r *reader) readTable() (found bool, err error) {
	if found, err = r.exists(); err != nil || !found {
		return false, err
	}
	return true, r.sets()
}

func (r *reader) exists() (found bool, err error) {
	err = r.conn.Dump(unix.NFT_MSG_GETTABLE, r.family.Number(), "", "", func(attributes []byte) error {
		var name string
		var flags uint32
		for typ, v := range netlink.Attrs(attributes) {
			switch typ {
			case unix.NFTA_TABLE_NAME:
				name = netlink.String(v)
			case unix.NFTA_TABLE_FLAGS:
				flags = netlink.Uint32(v)
			}
		}
		if name == nftables.TableName {
			found = true
			r.conn.owned[r.family] = flags&tablePersists != 0
		}
		return nil
	})
	if found && r.conn.owned[r.family] != r.conn.own {
		r.broken("its ownership is not as configured")
	}
	return found, err
}

func (r *reader) broken(format string, args ...any) {
	if r.table.Broken == "" {
		r.table.Broken = fmt.Sprintf(format, args...)
	}
}

// setState is a set as the kernel describes it.
type setState struct {
	layout  layout
	counted bool // whether the kernel gives the number of elements, as we count them
	count   uint32
}

// layouts reads which sets there are.
func (r *reader) layouts() (map[string]setState, error) {
	sets := map[string]setState{}
	err := r.conn.Dump(unix.NFT_MSG_GETSET, r.family.Number(), nftables.TableName, "", func(attributes []byte) error {
		name, s := parseSet(attributes)
		sets[name] = s
		r.table.Sets[name] = struct{}{}
		return nil
	})
	return sets, err
}

// sets reads all sets, and the elements of the fixed ones.
func (r *reader) sets() error {
	sets, err := r.layouts()
	if err != nil {
		return err
	}
	for _, kind := range nftables.FixedSets() {
		s, there := sets[kind.String()]
		if !there {
			continue
		}
		id := nftables.SetID{Family: r.family, Kind: kind}
		if s.layout != layoutOf(id) {
			r.broken("set %s is of another layout", kind)
			return nil
		}
		before := len(r.table.Elements)
		if err := r.elements(id); err != nil {
			return err
		}
		if s.counted && len(r.table.Elements)-before != int(s.count) {
			r.complete = false
		}
	}
	return nil
}

// setCount is NFTA_SET_COUNT (Linux 6.16), which golang.org/x/sys lacks.
const setCount = 20

func parseSet(attributes []byte) (name string, s setState) {
	for typ, v := range netlink.Attrs(attributes) {
		switch typ {
		case unix.NFTA_SET_NAME:
			name = netlink.String(v)
		case unix.NFTA_SET_FLAGS:
			s.layout.flags = netlink.Uint32(v)
		case unix.NFTA_SET_KEY_LEN:
			s.layout.keySize = netlink.Uint32(v)
		case unix.NFTA_SET_DATA_TYPE:
			s.layout.dataType = netlink.Uint32(v)
		case unix.NFTA_SET_DATA_LEN:
			s.layout.dataSize = netlink.Uint32(v)
		case setCount:
			s.counted, s.count = true, netlink.Uint32(v)
		}
	}
	if s.layout.dataType == dataVerdict {
		s.layout.dataSize = 0 // what the kernel says of a verdict's size is its own
	}
	if s.layout.flags&(unix.NFT_SET_INTERVAL|setConcat) == unix.NFT_SET_INTERVAL {
		s.counted = false // a red-black tree counts starts and ends
	}
	return name, s
}

// elements reads the elements of a set.
func (r *reader) elements(id nftables.SetID) error {
	schema := id.Kind.Schema()
	tree := schema.Interval && len(schema.Key) == 1
	var ends []interval
	err := r.conn.DumpElements(r.family.Number(), nftables.TableName, id.Kind.String(), func(attributes []byte) error {
		raw := parseElement(attributes)
		if tree {
			ends = append(ends, interval{slices.Clone(raw.key), raw.flags&elementIntervalEnd != 0})
			return nil
		}
		e, ok := r.element(id, raw)
		if !ok {
			r.broken("set %s has an element that is none of ours", id.Kind)
			return nil
		}
		r.table.Elements[e.ElementID] = e
		return nil
	})
	if err != nil {
		return err
	}
	return r.intervals(id, ends)
}

// rawElement is an element as the kernel sends it, in parts of the buffer.
type rawElement struct {
	key, keyEnd, data, userdata []byte
	chain                       []byte
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
				code = binary.BigEndian.Uint32(v)
			case unix.NFTA_VERDICT_CHAIN:
				chain = v
			}
		}
	}
	return code, chain
}

// element translates an element; false if it is nothing that we would write.
// A verdict that is no goto is kept as a chain of no name, and so differs.
func (r *reader) element(id nftables.SetID, raw rawElement) (nftables.Element, bool) {
	e := nftables.Element{ElementID: nftables.ElementID{Set: id}}
	schema, size := id.Kind.Schema(), id.KeySize()
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

// name returns the name of a chain. Few chains have many elements.
func (r *reader) name(chain []byte) string {
	chain = bytes.TrimRight(chain, "\x00")
	name, ok := r.names[string(chain)]
	if !ok {
		name = string(chain)
		r.names[name] = name
	}
	return name
}

// interval is the start or the end of an interval in the kernel's tree.
type interval struct {
	addr []byte
	end  bool
}

// intervals puts starts and ends together to prefixes. nft puts an end at
// address zero, which ends nothing.
func (r *reader) intervals(id nftables.SetID, ends []interval) error {
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
				r.broken("set %s has an interval without end", id.Kind)
				return nil
			}
		}
		bits, ok := prefixBits(e.addr, end)
		if !ok {
			r.broken("set %s has an interval that is no prefix", id.Kind)
			return nil
		}
		elem := nftables.Element{ElementID: nftables.ElementID{Set: id, Bits: uint8(bits)}}
		copy(elem.Key[:], e.addr)
		r.table.Elements[elem.ElementID] = elem
	}
	return nil
}
