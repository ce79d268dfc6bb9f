package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Connections are those that the kernel has counted to a frontend since its element was added.
type Connections struct {
	Frontend service.Frontend
	Port     string // the port of a Service: see rules.SplitPort
	Count    uint64
}

// ReadConnections calls each with the counters of all frontends in the tables of the families. A frontend can
// be missing, or come twice, if other transactions change the map meanwhile, and is missing if its counter is 0.
func ReadConnections(c *netlink.Conn, families []service.Family, each func(Connections)) error {
	for _, f := range families {
		set := nftables.Services.String()
		err := c.DumpElements(f.Number(), nftables.TableName, set, func(attributes []byte) error {
			raw := parseElement(attributes)
			if n, _ := raw.packets(); n == 0 {
				return nil // most frontends of a large cluster get no connection on a node
			}
			if connections, ok := raw.connections(); ok {
				each(connections)
			}
			return nil
		})
		if err := uninterrupted(err); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("read counters of table %s %s: %w", f, nftables.TableName, err)
		}
	}
	return nil
}

// ReadCounters returns the counters of elements. One that does not exist, or has none, is left out. It asks for
// each element: about 10 us.
func ReadCounters(c *netlink.Conn, ids []nftables.ElementID) (map[nftables.ElementID]uint64, error) {
	counts := make(map[nftables.ElementID]uint64, len(ids))
	for _, id := range ids {
		err := c.Request(getElement(id), func(attributes []byte) error {
			return netlink.Elements(attributes, func(element []byte) error {
				if n, ok := parseElement(element).packets(); ok {
					counts[id] = n
				}
				return nil
			})
		})
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return counts, fmt.Errorf("read counters of %s %s: %w", id.Set.Family, id.Set.Kind, err)
		}
	}
	return counts, nil
}

// Attributes of the expression counter of linux/netfilter/nf_tables.h.
const counterPackets = 2 // NFTA_COUNTER_PACKETS

// connections returns the counter of an element of the map services, and false if it has none.
func (e rawElement) connections() (out Connections, ok bool) {
	var of nftables.Element
	for _, f := range service.Families() {
		id := nftables.SetID{Family: f, Kind: nftables.Services}
		if len(e.key) == id.KeySize() {
			of.Set = id
		}
	}
	if e.counter == nil || of.Set.Family == 0 {
		return out, false
	}
	copy(of.Key[:], e.key)
	out.Frontend, out.Port = of.KeyValues().Frontend(), elementComment(e.userdata)
	out.Count, ok = e.packets()
	return out, ok
}

// packets returns how many packets the counter of an element has counted, and false if it has no counter. It
// counts the lookups that found the element: one for each connection.
func (e rawElement) packets() (n uint64, ok bool) {
	for typ, v := range netlink.Attrs(e.counter) {
		if typ == counterPackets && len(v) == 8 {
			return binary.BigEndian.Uint64(v), true
		}
	}
	return 0, false
}

// counterOf returns the attributes of the counter in an element's expression.
func counterOf(expression []byte) (attributes []byte) {
	name := ""
	for typ, v := range netlink.Attrs(expression) {
		switch typ {
		case unix.NFTA_EXPR_NAME:
			name = netlink.String(v)
		case unix.NFTA_EXPR_DATA:
			attributes = v
		}
	}
	if name != "counter" {
		return nil
	}
	return attributes
}

// echo asks the kernel for the counters of the frontends that the Delta deletes, unless they are too many. It
// returns the flag for the messages that delete them.
func (c *Conn) echo(b *netlink.Batch, d *rules.Delta) (flag uint16) {
	n := 0
	for i := range d.Delete {
		if d.Delete[i].Set.Kind == nftables.Services {
			n++
		}
	}
	if c.counted == nil || n == 0 || n > c.EchoRoom() {
		return 0
	}
	b.Echo = func(attributes []byte) {
		for typ, list := range netlink.Attrs(attributes) {
			if typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				continue
			}
			for _, element := range netlink.Attrs(list) {
				if connections, ok := parseElement(element).connections(); ok {
					c.counted(connections)
				}
			}
		}
	}
	return unix.NLM_F_ECHO
}
