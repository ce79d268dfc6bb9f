package netlink

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Dump asks for all objects of a kind, by NFT_MSG_GETTABLE, GETCHAIN, GETRULE, GETSET or GETSETELEM, and calls each
// with the attributes of every one. They are valid during the call only; an error of each ends the dump.
//
// Names that are not empty narrow it, where the kernel supports that: table for rules, sets and elements (not for
// tables and chains), name for the rules of a chain (required nowhere) and the elements of a set (required).
//
// ErrInterrupted, after everything was delivered, says that the ruleset changed meanwhile, in any table: the dump may
// miss objects or have them twice. The kernel does not report every case: it resizes a set without a fixed size for
// a moment after many elements came or went, and a dump at that time misses elements or has them twice.
func (c *Conn) Dump(msgType uint16, family uint8, table, name string, each func(attributes []byte) error) error {
	if err := c.ask(msgType, unix.NLM_F_DUMP, family, table, name, each); err != nil {
		return fmt.Errorf("dump nftables (message type %d, table %q, name %q): %w", msgType, table, name, err)
	}
	return nil
}

// DumpElements is Dump for the elements of a set or map: each gets the attributes NFTA_SET_ELEM_ of one element.
func (c *Conn) DumpElements(family uint8, table, set string, each func(element []byte) error) error {
	return c.Dump(unix.NFT_MSG_GETSETELEM, family, table, set, func(attributes []byte) error {
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
	})
}

// Generation returns the number of the ruleset of this network namespace: every transaction that changes anything in
// any table, by any process, moves it by one. It is never 0. Asking is one small message.
//
// The process that the kernel names in its answer is the one that asks, not the one that changed something.
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
		err = errors.New("not in the answer")
	}
	if err != nil {
		return 0, fmt.Errorf("read nftables generation: %w", err)
	}
	return generation, nil
}

// ask sends one message outside a batch and calls each with the attributes of every answer.
func (c *Conn) ask(msgType, flags uint16, family uint8, table, name string, each func([]byte) error) error {
	r := &c.request
	r.Reset()
	r.Message(unix.NFNL_SUBSYS_NFTABLES, msgType, flags, family)
	// Table and name are the attributes 1 and 2 of all the requests named at Dump.
	if table != "" {
		r.String(1, table)
	}
	if name != "" {
		r.String(2, name)
	}
	interrupted, first := false, -1
	err := c.Request(r, func(m Message) error {
		if m.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.Payload) < headerSize {
			return fmt.Errorf("unexpected answer of type %#x, %d bytes", m.Type, len(m.Payload))
		}
		// The resource of an answer is the low half of the generation at its time. The kernel sets
		// NLM_F_DUMP_INTR for everything but elements (checked on 6.18).
		resource := int(binary.BigEndian.Uint16(m.Payload[2:]))
		if first < 0 {
			first = resource
		}
		interrupted = interrupted || resource != first
		return each(m.Attributes())
	})
	if err == nil && interrupted {
		err = ErrInterrupted
	}
	return err
}
