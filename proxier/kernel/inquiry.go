package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Inquiry reads single elements and the chains of our tables, to evaluate the rules that the kernel has. It
// changes nothing, and its cost does not depend on the number of Services: it asks for elements by their key,
// for each once. Only sets of intervals, and those of which many elements are needed, are read as a whole.
type Inquiry struct {
	conn    *Conn
	configs []rules.Config
	chains  map[service.Family]chains
	ranges  map[nftables.SetID]map[nftables.ElementID]nftables.Element
	known   map[nftables.ElementID]answered
	asked   map[nftables.SetID]int // how many elements of a set
	expires map[nftables.ElementID]time.Duration
}

// answered is what the kernel has answered about an element.
type answered struct {
	element     nftables.Element
	found       bool
	connections uint64
	counted     bool
}

// NewInquiry returns an Inquiry over a connection. The configurations say which rules the chains can have:
// those of one of them. A chain with other rules is an error.
func NewInquiry(c *Conn, configs ...rules.Config) *Inquiry {
	return &Inquiry{
		conn: c, configs: configs, chains: map[service.Family]chains{},
		ranges:  map[nftables.SetID]map[nftables.ElementID]nftables.Element{},
		known:   map[nftables.ElementID]answered{},
		asked:   map[nftables.SetID]int{},
		expires: map[nftables.ElementID]time.Duration{},
	}
}

// family reads the chains of a table, once.
func (q *Inquiry) family(f service.Family) (chains, error) {
	if known, ok := q.chains[f]; ok {
		return known, nil
	}
	r := newReader(q.conn, f)
	found, err := r.exists()
	if err != nil {
		return chains{}, fmt.Errorf("read table %s %s: %w", f, nftables.TableName, err)
	}
	if !found {
		return chains{}, fmt.Errorf("the kernel has no table %s %s", f, nftables.TableName)
	}
	read, err := r.chains()
	if err != nil {
		return chains{}, fmt.Errorf("read chains of table %s %s: %w", f, nftables.TableName, err)
	}
	q.chains[f] = read
	return read, nil
}

// BaseChains returns the base chains of the table.
func (q *Inquiry) BaseChains(f service.Family) (base []nftables.Chain, err error) {
	read, err := q.family(f)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(read.hooks)) {
		if read.hooks[name] == nil {
			continue
		}
		c, _, err := q.Chain(f, name)
		if err != nil {
			return nil, err
		}
		base = append(base, c)
	}
	return base, nil
}

// Chain returns a chain with its rules, and false if the table does not have it. A chain with other rules than
// nftproxy writes is an error.
func (q *Inquiry) Chain(f service.Family, name string) (nftables.Chain, bool, error) {
	read, err := q.family(f)
	if err != nil {
		return nftables.Chain{}, false, err
	}
	_, listed := read.hooks[name]
	if _, hasRules := read.rules[name]; !listed && !hasRules {
		return nftables.Chain{}, false, nil
	}
	for _, config := range q.configs {
		chain, known := rules.KnownChain(config, f, name)
		if !known {
			return chain, true, fmt.Errorf("chain %s of table %s is not one of nftproxy's", name, f)
		}
		t := rules.NewTableState()
		t.Chains[name] = false
		if err := read.compare(t, []nftables.Chain{chain}); err != nil {
			return chain, true, err
		}
		if t.Chains[name] && t.Broken == "" {
			return chain, true, nil
		}
	}
	return nftables.Chain{}, true, fmt.Errorf("chain %s of table %s has other rules than nftproxy writes with "+
		"this configuration, or another hook", name, f)
}

// Element returns an element, and false if the table does not have it.
func (q *Inquiry) Element(id nftables.ElementID) (nftables.Element, bool, error) {
	if id.Set.Schema().Interval {
		return q.interval(id)
	}
	if q.asked[id.Set]++; q.asked[id.Set] == manyElements {
		if err := q.readSet(id.Set); err != nil {
			return nftables.Element{}, false, err
		}
	}
	a, known := q.known[id]
	if !known {
		var err error
		if a, err = q.ask(id); err != nil {
			return nftables.Element{}, false, err
		}
		q.known[id] = a
	}
	return a.element, a.found, nil
}

// manyElements is how many elements of a set are asked for one by one, before the set is read as a whole: a
// Service can have 65,535 endpoints.
const manyElements = 1000

// readSet reads all elements of a set. The kernel is still asked for those that the dump may have missed.
func (q *Inquiry) readSet(set nftables.SetID) error {
	r := newReader(q.conn, set.Family)
	family, name := set.Family.Number(), set.Kind.String()
	err := q.conn.DumpElements(family, nftables.TableName, name, func(attributes []byte) error {
		if a := r.answer(set, parseElement(attributes)); a.found {
			q.known[a.element.ElementID] = a
		}
		return nil
	})
	if err := uninterrupted(err); err != nil {
		return fmt.Errorf("read %s %s: %w", set.Family, set.Kind, err)
	}
	return nil
}

// answer translates an element with its counter. It is not found if nftproxy never writes such an element.
func (r *reader) answer(set nftables.SetID, raw rawElement) (a answered) {
	a.element, a.found = r.element(set, raw)
	a.connections, a.counted = raw.packets()
	return a
}

// ask asks the kernel for an element.
func (q *Inquiry) ask(id nftables.ElementID) (a answered, err error) {
	r := newReader(q.conn, id.Set.Family)
	err = q.conn.Request(getElement(id), func(attributes []byte) error {
		return netlink.Elements(attributes, func(element []byte) error {
			if a = r.answer(id.Set, parseElement(element)); !a.found {
				return fmt.Errorf("set %s has an unexpected element", id.Set.Kind)
			}
			if left, expires := expiration(element); expires {
				q.expires[id] = left
			}
			return nil
		})
	})
	if errors.Is(err, unix.ENOENT) {
		return answered{}, nil
	}
	if err != nil {
		return answered{}, fmt.Errorf("read element of %s %s: %w", id.Set.Family, id.Set.Kind, err)
	}
	return a, nil
}

// Frontends returns the frontends in the kernel that pick picks by their comments. It reads all of a table.
func (q *Inquiry) Frontends(f service.Family, pick func(f service.Frontend, comment string) bool) (
	found []service.Frontend, err error) {
	set := nftables.SetID{Family: f, Kind: nftables.Services}
	r := newReader(q.conn, f)
	err = q.conn.DumpElements(f.Number(), nftables.TableName, set.Kind.String(), func(attributes []byte) error {
		if e, ok := r.element(set, parseElement(attributes)); ok {
			if frontend := e.KeyValues().Frontend(); pick(frontend, e.Comment) {
				found = append(found, frontend)
			}
		}
		return nil
	})
	if errors.Is(err, unix.ENOENT) { // there is no table
		return nil, nil
	}
	return found, uninterrupted(err)
}

// PodCIDRs returns the ranges of pods that the kernel has.
func (q *Inquiry) PodCIDRs(families ...service.Family) (cidrs []netip.Prefix, err error) {
	for _, f := range families {
		set := nftables.SetID{Family: f, Kind: nftables.PodCIDRs}
		if _, _, err := q.interval(nftables.ElementID{Set: set}); err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, err
		}
		for id := range q.ranges[set] {
			cidrs = append(cidrs, netip.PrefixFrom(id.KeyValues().Addrs[0], int(id.Bits)))
		}
	}
	slices.SortFunc(cidrs, netip.Prefix.Compare)
	return cidrs, nil
}

// Expires returns when an element that Element has returned will be removed by the kernel.
func (q *Inquiry) Expires(id nftables.ElementID) (time.Duration, bool) {
	left, ok := q.expires[id]
	return left, ok
}

// Counted returns how many connections the rules have counted at an element that Element has returned, since
// the kernel has it. It returns false for an element without a counter.
func (q *Inquiry) Counted(id nftables.ElementID) (uint64, bool) {
	a := q.known[id]
	return a.connections, a.counted
}

// interval returns an element of a set of intervals. The kernel looks up an interval by a part of it, and not
// by its bounds, so the whole set is read.
func (q *Inquiry) interval(id nftables.ElementID) (nftables.Element, bool, error) {
	elements, ok := q.ranges[id.Set]
	if !ok {
		r := newReader(q.conn, id.Set.Family)
		if err := r.elements(id.Set); err != nil {
			return nftables.Element{}, false, err
		}
		if r.table.Broken != "" {
			return nftables.Element{}, false, errors.New(r.table.Broken)
		}
		elements = r.table.Elements
		q.ranges[id.Set] = elements
	}
	e, found := elements[id]
	return e, found, nil
}

// getElement is the request for one element.
func getElement(id nftables.ElementID) *netlink.Writer {
	w := &netlink.Writer{}
	w.Message(unix.NFNL_SUBSYS_NFTABLES, unix.NFT_MSG_GETSETELEM, unix.NLM_F_ACK, id.Set.Family.Number())
	w.String(unix.NFTA_SET_ELEM_LIST_TABLE, nftables.TableName)
	w.String(unix.NFTA_SET_ELEM_LIST_SET, id.Set.Kind.String())
	list := w.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	element := w.Nest(unix.NFTA_LIST_ELEM)
	key := w.Nest(unix.NFTA_SET_ELEM_KEY)
	w.Bytes(unix.NFTA_DATA_VALUE, id.Key[:id.Set.KeySize()])
	w.EndNest(key)
	w.EndNest(element)
	w.EndNest(list)
	return w
}

// elementExpiration is NFTA_SET_ELEM_EXPIRATION of linux/netfilter/nf_tables.h: milliseconds.
const elementExpiration = 5

func expiration(element []byte) (time.Duration, bool) {
	for typ, v := range netlink.Attrs(element) {
		if typ == elementExpiration && len(v) >= 8 {
			return time.Duration(binary.BigEndian.Uint64(v)) * time.Millisecond, true
		}
	}
	return 0, false
}
