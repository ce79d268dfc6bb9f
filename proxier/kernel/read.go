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

// readAttempts bounds how often a dump is repeated because another process changed the ruleset meanwhile,
// maybe in another table, or because the dump is incomplete.
const readAttempts = 5

// incompletePause is the time that the kernel gets to resize a set. It grows with each attempt.
const incompletePause = 20 * time.Millisecond

// errIncomplete: a dump has fewer elements than the kernel counts (Linux 6.16). For a while after a large
// insert the kernel resizes the hash table, and dumps miss elements.
var errIncomplete = errors.New("the dump is incomplete")

// snapshot is the state of our tables at one generation. tables has only the names of chains until compare is
// called.
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
			err = nil // the kernel refuses to add an element that exists, and the next sync reads again
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

	complete bool // whether we read as many elements as the kernel counts
}

func newReader(c *Conn, f service.Family) *reader {
	return &reader{conn: c, family: f, table: rules.NewTableState(), names: map[string]string{}, complete: true}
}

// readTable reads the table's sets and elements, and returns false if there is no table.
func (r *reader) readTable() (found bool, err error) {
	if found, err = r.exists(); err != nil || !found {
		return false, err
	}
	return true, r.sets()
}

// exists reports whether there is a table, and reads its flags.
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
	counted bool // whether count is the number of elements as we count them
	count   uint32
}

// layouts reads all sets without their elements.
func (r *reader) layouts() (map[string]setState, error) {
	sets := map[string]setState{}
	family := r.family.Number()
	err := r.conn.Dump(unix.NFT_MSG_GETSET, family, nftables.TableName, "", func(attributes []byte) error {
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
