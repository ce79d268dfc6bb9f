package netlink

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Dump requests all objects of a kind, by NFT_MSG_GETTABLE, GETCHAIN, GETRULE, GETSET or GETSETELEM, and
// calls each with the attributes of every object. They are valid during the call only. An error of each ends
// the dump.
//
// Names that are not empty narrow the dump where the kernel supports it: table for rules, sets and elements,
// but not for tables and chains; name for the elements of a set, where it is required, and for the rules of a
// chain.
//
// ErrInterrupted means that each got the whole dump, but that the ruleset changed meanwhile, in any table:
// the dump may miss objects or have them twice. The kernel does not report every case: for a moment after
// many elements were added or deleted it resizes a set without a fixed size, and a dump at that time misses
// elements or has them twice.
func (c *Conn) Dump(
	msgType uint16, family uint8, table, name string, each func(attributes []byte) error,
) error {
	if err := c.ask(msgType, unix.NLM_F_DUMP, family, table, name, each); err != nil {
		return fmt.Errorf("dump nftables (message type %d, table %q, name %q): %w", msgType, table, name, err)
	}
	return nil
}

// DumpElements is Dump for the elements of a set or map. It calls each with the attributes NFTA_SET_ELEM_ of
// one element.
func (c *Conn) DumpElements(family uint8, table, set string, each func(element []byte) error) error {
	return c.Dump(unix.NFT_MSG_GETSETELEM, family, table, set, func(attributes []byte) error {
		return Elements(attributes, each)
	})
}

// Elements calls each with the attributes NFTA_SET_ELEM_ of each element in an answer to NFT_MSG_GETSETELEM.
func Elements(attributes []byte, each func(element []byte) error) error {
	for typ, list := range Attrs(attributes) {
		if typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		for _, element := range Attrs(list) {
			if err := each(element); err != nil {
				return err
			}
		}
	}
	return nil
}

// tableOwner is NFTA_TABLE_OWNER (Linux 5.12), which golang.org/x/sys lacks.
const tableOwner = 7

// Table returns the flags and the owner of a table, without reading others: the address (Socket.Port) of the
// socket that owns it, or 0. It returns false if there is no table of that name.
func (c *Conn) Table(family uint8, name string) (flags, owner uint32, found bool, err error) {
	err = c.ask(unix.NFT_MSG_GETTABLE, unix.NLM_F_ACK, family, name, "", func(attributes []byte) error {
		found = true
		for typ, v := range Attrs(attributes) {
			switch typ {
			case unix.NFTA_TABLE_FLAGS:
				flags = Uint32(v)
			case tableOwner:
				owner = Uint32(v)
			}
		}
		return nil
	})
	if errors.Is(err, unix.ENOENT) {
		return 0, 0, false, nil
	}
	if err != nil {
		return 0, 0, false, fmt.Errorf("read nftables table %q: %w", name, err)
	}
	return flags, owner, found, nil
}

// Generation returns the generation of the ruleset of this network namespace. Every transaction that changes
// something, in any table and by any process, increments it by one. It is never 0. The request is one small
// message.
//
// The process that the kernel names in its answer is the one that asks, not the one that changed the ruleset.
func (c *Conn) Generation() (uint32, error) {
	var generation uint32
	err := c.ask(unix.NFT_MSG_GETGEN, unix.NLM_F_ACK, unix.AF_UNSPEC, "", "", func(attributes []byte) error {
		for typ, v := range Attrs(attributes) {
			if typ == unix.NFTA_GEN_ID {
				generation = Uint32(v)
			}
		}
		return nil
	})
	if err == nil && generation == 0 {
		err = errors.New("the answer does not have it")
	}
	if err != nil {
		return 0, fmt.Errorf("read nftables generation: %w", err)
	}
	return generation, nil
}

// ask sends one message without a batch and calls each with the attributes of every answer.
func (c *Conn) ask(msgType, flags uint16, family uint8, table, name string, each func([]byte) error) error {
	r := &c.request
	r.Reset()
	r.Message(unix.NFNL_SUBSYS_NFTABLES, msgType, flags, family)
	// Table and name are the attributes 1 and 2 of all the requests that Dump lists.
	if table != "" {
		r.String(1, table)
	}
	if name != "" {
		r.String(2, name)
	}
	err := c.Request(r, each)
	if table == "" && name == "" {
		return absent(err)
	}
	return err
}
