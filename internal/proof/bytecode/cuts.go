package bytecode

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Cuts are the values at which something changes for a packet: those that the rules compare a field with. Two
// packets that no value separates meet the same rules with the same results.
//
// A value of an ordered field begins a class: what is compared with equality is there with its successor as
// well, and a range with its first value and the one after its last.
type Cuts struct {
	Src, Dst   map[netip.Addr]bool
	Protocol   map[uint8]bool
	Port       map[uint16]bool
	Interfaces map[string]bool // names, and beginnings of names with a * behind them
	Marks      map[uint32]bool // masks, of which a packet has no bit or all bits
	Priorities map[uint32]bool
	Socket     bool // whether it matters if the packet has a socket
}

// field is a property of a packet that a register has a copy of.
type field uint8

const (
	nowhere field = iota // a value that another rule or map chose
	srcField
	dstField
	protocolField
	portField
	interfaceField
	markField
	priorityField
	typeField     // of an address: those of the host have the type local, and the caller knows them
	constantField // the same for all packets, or their own choice
)

// NewCuts returns no cuts.
func NewCuts() *Cuts {
	return &Cuts{Src: map[netip.Addr]bool{}, Dst: map[netip.Addr]bool{}, Protocol: map[uint8]bool{},
		Port: map[uint16]bool{}, Interfaces: map[string]bool{}, Marks: map[uint32]bool{},
		Priorities: map[uint32]bool{}}
}

// Add adds the cuts of the tables of a family. It fails where a rule compares something else than the fields
// that Cuts have.
func (c *Cuts) Add(r *Ruleset, family uint8) error {
	for _, t := range r.Tables {
		if t.Family != family {
			continue
		}
		for _, chain := range t.Chains {
			for i, rule := range chain.Rules {
				s := &scan{cuts: c, size: 4}
				if family == unix.NFPROTO_IPV6 {
					s.size = 16
				}
				for _, x := range rule {
					if err := s.expression(x); err != nil {
						return fmt.Errorf("%s, rule %d: %w", chain, i+1, err)
					}
				}
			}
		}
	}
	return nil
}

// scan follows a rule and knows which field each word of the registers has.
type scan struct {
	cuts     *Cuts
	size     int // of addresses
	words    [20]field
	masks    [20][]byte // of the address in the word, if only the bits of a prefix count
	priority bool       // was written by the rule: it is not the packet's own any more
}

func (s *scan) load(at, size int, f field) {
	for i := at / 4; i < (at+size+3)/4; i++ {
		s.words[i], s.masks[i] = f, nil
	}
}

func (s *scan) expression(x expression) error {
	switch x := x.(type) {
	case nothing, *verdict, translation, masquerade, reject, dynset:
	case immediate:
		s.load(x.to, len(x.data), constantField)
	case random:
		s.load(x.to, 4, constantField)
	case jenkins:
		s.load(x.to, 4, constantField)
	case payload:
		return s.payload(x)
	case meta:
		s.meta(x)
	case conntrack:
		s.conntrack(x)
	case addressType:
		s.load(x.to, 4, typeField)
	case bitwise:
		return s.bitwise(x)
	case compare:
		return s.range_(x.from, x.with, x.with)
	case between:
		return s.range_(x.from, x.first, x.last)
	case lookup:
		return s.lookup(x)
	default:
		return fmt.Errorf("the constants of %T are not known", x)
	}
	return nil
}

func (s *scan) payload(x payload) error {
	src := 12
	if s.size == 16 {
		src = 8
	}
	switch {
	case !x.transport && x.offset == src && x.size <= s.size:
		s.address(x, srcField)
	case !x.transport && x.offset == src+s.size && x.size <= s.size:
		s.address(x, dstField)
	case x.transport && x.offset == 2 && x.size == 2:
		s.load(x.to, x.size, portField)
	case x.isSourcePort():
		s.load(x.to, x.size, constantField)
	default:
		return fmt.Errorf("bytes %d to %d of a header are not known", x.offset, x.offset+x.size)
	}
	return nil
}

func (s *scan) bitwise(x bitwise) error {
	switch f := s.words[x.from/4]; f {
	case constantField:
	case markField:
		s.cuts.Marks[binary.NativeEndian.Uint32(x.mask)] = true
	case srcField, dstField:
		_, bits := net.IPMask(x.mask).Size() // 0 if the mask is not that of a prefix
		if bytes.Count(x.xor, []byte{0}) < len(x.xor) || bits == 0 {
			return fmt.Errorf("the mask %x of an address is not that of a prefix", x.mask)
		}
		s.load(x.to, len(x.mask), f)
		s.masks[x.to/4] = x.mask
	default:
		return fmt.Errorf("bitwise on the field %d is not known", f)
	}
	return nil
}

// prefix returns the first and the last address of a prefix.
func (s *scan) prefix(bits, mask []byte) (first, last []byte) {
	first, last = make([]byte, s.size), bytes.Repeat([]byte{0xff}, s.size)
	for i := range mask {
		first[i] = bits[i] & mask[i]
		last[i] = bits[i] | ^mask[i]
	}
	return first, last
}

// address is the load of an address, or of the bytes of it that a prefix has.
func (s *scan) address(x payload, f field) {
	if s.load(x.to, x.size, f); x.size < s.size {
		s.masks[x.to/4] = bytes.Repeat([]byte{0xff}, x.size)
	}
}

func (s *scan) meta(x meta) {
	switch {
	case x.written:
		s.priority = s.priority || x.key == unix.NFT_META_PRIORITY
	case x.key == unix.NFT_META_MARK:
		s.load(x.at, 4, markField)
	case x.key == unix.NFT_META_PRIORITY && !s.priority:
		s.load(x.at, 4, priorityField)
	case x.key == unix.NFT_META_L4PROTO:
		s.load(x.at, 1, protocolField)
	case x.key == unix.NFT_META_IIFNAME:
		s.load(x.at, unix.IFNAMSIZ, interfaceField)
	default:
		s.cuts.Socket = s.cuts.Socket || x.key == unix.NFT_META_SKUID
		s.load(x.at, 4, constantField)
	}
}

func (s *scan) conntrack(x conntrack) {
	switch x.key {
	case unix.NFT_CT_STATE, unix.NFT_CT_STATUS:
		s.load(x.to, 4, constantField)
	case unix.NFT_CT_PROTOCOL:
		s.load(x.to, 1, protocolField)
	case unix.NFT_CT_PROTO_DST:
		s.load(x.to, 2, portField)
	case unix.NFT_CT_SRC, unix.NFT_CT_SRC_IP, unix.NFT_CT_SRC_IP6:
		s.load(x.to, s.size, srcField)
	default:
		s.load(x.to, s.size, dstField)
	}
}

// lookup adds the keys of a set, and loads what it gives.
func (s *scan) lookup(x lookup) error {
	if !x.set.dynamic() {
		for i, e := range x.set.list {
			last := e.last
			switch {
			case last != nil:
			case x.set.flags&unix.NFT_SET_INTERVAL == 0:
				last = e.key
			default: // the next element begins what comes behind the interval
				if err := s.begin(x.from, x.set.list[i].key); err != nil {
					return err
				}
				continue
			}
			if err := s.range_(x.from, e.key, last); err != nil {
				return err
			}
		}
	}
	if x.to >= 0 {
		s.load(x.to, x.set.dataSize, constantField)
	}
	return nil
}

// range_ cuts each field of a key at the first value of a range, and behind the last one.
func (s *scan) range_(at int, first, last []byte) error {
	return s.parts(at, first, last, true)
}

// begin cuts each field of a key at a value.
func (s *scan) begin(at int, first []byte) error { return s.parts(at, first, first, false) }

func (s *scan) parts(at int, first, last []byte, behind bool) error {
	c := s.cuts
	for i := 0; i < len(first); {
		rest, end := first[i:], last[i:]
		if mask := s.masks[(at+i)/4]; mask != nil {
			if len(mask) != len(rest) {
				return fmt.Errorf("%d bytes of an address with the mask %x are compared", len(rest), mask)
			}
			rest, end = s.prefix(rest, mask)
		}
		size := 4
		switch s.words[(at+i)/4] {
		case srcField:
			size = cutAddress(c.Src, rest, end, s.size, behind)
		case dstField:
			size = cutAddress(c.Dst, rest, end, s.size, behind)
		case protocolField:
			c.Protocol[rest[0]] = true
			if behind && end[0] < 255 {
				c.Protocol[end[0]+1] = true
			}
		case portField:
			c.Port[binary.BigEndian.Uint16(rest)] = true
			if next := binary.BigEndian.Uint16(end) + 1; behind && next != 0 {
				c.Port[next] = true
			}
		case interfaceField:
			size = len(rest)
			c.Interfaces[interfacePattern(rest)] = true
		case priorityField:
			c.Priorities[binary.NativeEndian.Uint32(rest)] = true
		case typeField:
			if typ := binary.NativeEndian.Uint32(rest); typ != unix.RTN_LOCAL {
				return fmt.Errorf("a comparison with the type %d of an address is not known", typ)
			}
		case constantField, markField:
		default:
			return fmt.Errorf("register word %d is compared and was not loaded", (at+i)/4)
		}
		i += size
	}
	return nil
}

// cutAddress adds the first address and the one behind the last. It returns the size of an address.
func cutAddress(to map[netip.Addr]bool, first, last []byte, size int, behind bool) int {
	a, _ := netip.AddrFromSlice(first[:size])
	to[a] = true
	if b, _ := netip.AddrFromSlice(last[:size]); behind && b.Next().IsValid() {
		to[b.Next()] = true
	}
	return size
}

// interfacePattern returns the name that is compared: all 16 bytes, or a beginning of it with a *.
func interfacePattern(b []byte) string {
	if len(b) < unix.IFNAMSIZ {
		return string(b) + "*"
	}
	n := 0
	for n < len(b) && b[n] != 0 {
		n++
	}
	return string(b[:n])
}
