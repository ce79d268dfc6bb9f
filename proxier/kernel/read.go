package kernel

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// readAttempts bounds how often a table is read again because a dump of its elements is incomplete.
const readAttempts = 5

// incompletePause is the time that the kernel gets to resize a set. It grows with each attempt.
const incompletePause = 20 * time.Millisecond

// snapshot is the state of our tables. The TableStates have only the names of chains until compare is called.
type snapshot struct {
	tables rules.Programmed
	chains map[service.Family]chains
}

// read reads the tables of the families that are in the kernel.
//
// Other processes may commit all the time, and read does not wait for them: what they do in their own tables
// moves nothing in ours. What they do in ours meanwhile is found by the next CheckDrift, which then sees
// another generation than the one before the first dump.
//
// For a while after a large insert the kernel resizes a set, and dumps of it miss elements. Since Linux 6.16
// the kernel counts the elements: read reads such a table again. If it stays incomplete, or the kernel does
// not count, an element that is missing does no harm: the kernel accepts it once more, or refuses the
// transaction because it has other data, and the next full sync reads again.
func (c *Conn) read(families []service.Family) (*snapshot, error) {
	before, err := c.Generation()
	if err != nil {
		return nil, err
	}
	c.seen, c.commits = before, 0
	s := &snapshot{tables: rules.Programmed{}, chains: map[service.Family]chains{}}
	for _, f := range families {
		if err := c.readFamily(s, f); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (c *Conn) readFamily(s *snapshot, f service.Family) error {
	for attempt := 1; ; attempt++ {
		r := newReader(c, f)
		found, err := r.readTable()
		if err != nil {
			return fmt.Errorf("read table %s %s: %w", f, nftables.TableName, err)
		}
		if !found {
			return nil
		}
		if !r.complete && attempt < readAttempts {
			time.Sleep(time.Duration(attempt) * incompletePause)
			continue
		}
		s.tables[f] = r.table
		if s.chains[f], err = r.chains(); err != nil {
			return fmt.Errorf("read chains of table %s %s: %w", f, nftables.TableName, err)
		}
		return nil
	}
}

// reader reads one table.
type reader struct {
	conn   *Conn
	family service.Family
	table  *rules.TableState
	names  map[string]string // of chains, each once

	complete bool // whether we read as many elements as the kernel counts
}

func newReader(c *Conn, f service.Family) *reader {
	return &reader{conn: c, family: f, table: rules.NewTableState(), names: map[string]string{}, complete: true}
}

// dump is Dump of the objects in our table, or in all tables of the family with an empty name. It takes what
// it gets although other processes commit meanwhile: sets and rules of our table are in lists of their own.
func (r *reader) dump(msgType uint16, table string, each func(attributes []byte) error) error {
	return uninterrupted(r.conn.Dump(msgType, r.family.Number(), table, "", each))
}

// uninterrupted returns the error of a dump, unless it is only that another process committed meanwhile.
func uninterrupted(err error) error {
	if errors.Is(err, netlink.ErrInterrupted) {
		return nil
	}
	return err
}

// readTable reads the table's sets and elements, and returns false if there is no table.
func (r *reader) readTable() (found bool, err error) {
	if found, err = r.exists(); err != nil || !found {
		return false, err
	}
	return true, r.sets()
}

// exists reports whether there is a table that can be read.
func (r *reader) exists() (found bool, err error) {
	found, _, err = r.conn.look(r.family)
	if found && r.conn.owned[r.family] != r.conn.own {
		r.broken("its ownership differs from the configuration")
	}
	return found, err
}

// broken marks the table as one that cannot be repaired in place. The first reason stays.
func (r *reader) broken(format string, args ...any) {
	if r.table.Broken == "" {
		r.table.Broken = fmt.Sprintf(format, args...)
	}
}

// setState is a set as the kernel describes it.
type setState struct {
	layout  layout
	counter bool // whether its elements have counters
	counted bool // whether count is the number of elements as we count them
	count   uint32
}

// layouts reads all sets without their elements.
func (r *reader) layouts() (map[string]setState, error) {
	sets := map[string]setState{}
	err := r.dump(unix.NFT_MSG_GETSET, nftables.TableName, func(attributes []byte) error {
		name, s := parseSet(attributes)
		sets[name] = s
		r.table.Sets[name] = s.counter
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
	for _, kind := range nftables.SetKinds() {
		s, exists := sets[kind.String()]
		if !exists {
			continue
		}
		id := nftables.SetID{Family: r.family, Kind: kind}
		if s.layout != layoutOf(id) {
			r.broken("set %s has another layout", kind)
			return nil
		}
		if id.Schema().Dynamic {
			continue // the kernel fills it
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
		case setExpr:
			s.counter = true
		case setCount:
			s.counted, s.count = true, netlink.Uint32(v)
		}
	}
	if s.layout.dataType == dataVerdict {
		s.layout.dataSize = 0 // the kernel reports the size of its own structure
	}
	if s.layout.flags&(unix.NFT_SET_INTERVAL|setConcat) == unix.NFT_SET_INTERVAL {
		s.counted = false // a red-black tree counts starts and ends
	}
	return name, s
}
