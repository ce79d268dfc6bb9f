package interpreter

import (
	"fmt"
	"net/netip"

	"github.com/nftproxy/nftproxy/rules/nftables"
)

// lookUp evaluates the statements that look up an element or change the map of clients.
func (m *machine) lookUp(s *state, statement nftables.Statement) (after, error) {
	switch x := statement.(type) {
	case nftables.InSet:
		_, found, err := m.find(s, x.Key, x.Set)
		return s.when(found != x.Not, words(found, "in ", "not in ")+x.Set), err
	case nftables.Dispatch:
		e, found, err := m.find(s, x.Key, x.Map)
		if err != nil || !found {
			return s.when(false, "not in "+x.Map), err
		}
		return m.call(s, e.Chain, false)
	case nftables.DNAT:
		e, found, err := m.find(s, x.Key, x.Map)
		if err != nil || !found {
			return s.when(false, "not in "+x.Map), err
		}
		return s.translate(e.DataValues().Backend()), nil
	case nftables.SetPriority:
		return m.setPriority(s, x.Key, x.Map)
	case nftables.Recall:
		if s.forgotten {
			return s.when(false, "not in "+x.Map), nil
		}
		return m.setPriority(s, nftables.ClientKey(m.family), x.Map)
	case nftables.Remember:
		return m.remember(s, x.Map)
	case nftables.Forget:
		s.forgotten, s.remembered = true, nil
		return proceed, nil
	}
	return leave, fmt.Errorf("unknown statement %T", statement)
}

// setPriority sets the priority to the number that a map has.
func (m *machine) setPriority(s *state, key []nftables.Field, name string) (after, error) {
	e, found, err := m.find(s, key, name)
	if err != nil || !found {
		return s.when(false, "not in "+name), err
	}
	s.priority = e.DataValues().Class
	return s.when(true, name+" has "+s.priority.String()), nil
}

// remember records the client with the number in the priority. The map keeps the number that it has.
func (m *machine) remember(s *state, name string) (after, error) {
	key := nftables.ClientKey(m.family)
	client := Client{Number: s.priority}
	var err error
	if client.ID, err = m.id(s, key, name); err != nil {
		return leave, err
	}
	if !s.forgotten {
		var e nftables.Element
		if e, client.Known, err = m.tables.Element(client.ID); err != nil {
			return leave, err
		}
		if client.Known {
			client.Number = e.DataValues().Class
		}
	}
	s.remembered = &client
	return s.when(true, "remembered as "+client.Number.String()), nil
}

// id returns the identity of the element that a lookup finds in a set without intervals.
func (m *machine) id(s *state, key []nftables.Field, name string) (nftables.ElementID, error) {
	h := nftables.Header{Src: s.packet.Src, Dst: s.packet.Dst, Protocol: s.packet.Protocol, Port: s.packet.Port,
		Priority: s.priority, Random: s.random}
	for _, kind := range nftables.SetKinds() {
		if kind.String() == name {
			set := nftables.SetID{Family: m.family, Kind: kind}
			return nftables.ElementID{Set: set, Key: h.Key(key)}, nil
		}
	}
	return nftables.ElementID{}, fmt.Errorf("unknown set %s", name)
}

// find looks up an element. In a set of intervals it finds the smallest prefix that contains the last column
// of the key.
func (m *machine) find(s *state, key []nftables.Field, name string) (nftables.Element, bool, error) {
	id, err := m.id(s, key, name)
	if err != nil || !id.Set.Schema().Interval {
		if err != nil {
			return nftables.Element{}, false, err
		}
		return m.tables.Element(id)
	}
	size := id.Set.Family.AddrSize()
	column := id.Key[id.Set.KeySize()-size : id.Set.KeySize()]
	addr, _ := netip.AddrFromSlice(column)
	for bits := addr.BitLen(); bits >= 0; bits-- {
		prefix := netip.PrefixFrom(addr, bits).Masked()
		copy(column, prefix.Addr().AsSlice())
		id.Bits = uint8(bits)
		if e, found, err := m.tables.Element(id); err != nil || found {
			return e, found, err
		}
	}
	return nftables.Element{}, false, nil
}

// choiceOf returns how many numbers a statement can choose from, and 0 if the packet decides alone. A hash
// with the source port, which is not known, can give each number.
func choiceOf(statement nftables.Statement) int {
	var key []nftables.Field
	switch x := statement.(type) {
	case nftables.TakeTurn:
		return x.N
	case nftables.DNAT:
		key = x.Key
	case nftables.SetPriority:
		key = x.Key
	case nftables.InSet:
		key = x.Key
	case nftables.Dispatch:
		key = x.Key
	}
	for _, field := range key {
		if n := field.Slots(); n > 0 && field != nftables.SourceHash(n) {
			return n
		}
	}
	return 0
}
