package nftables

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/nftproxy/nftproxy/rules/service"
)

// Key is an element's key in the kernel's layout: the columns of the set's schema one after the other, each
// padded to 4 bytes. The rest is zero.
type Key [40]byte

// Data is the data of a map's element in the same layout.
type Data [20]byte

// ElementID identifies an element: the table has at most one with this ID.
type ElementID struct {
	Set  SetID
	Key  Key
	Bits uint8 // interval sets: prefix length of the key's last column
}

// Element is an element of a set or map.
type Element struct {
	ElementID
	Data    Data   // of a map that is not a verdict map
	Chain   string // of a verdict map: the chain that packets go to
	Comment string // the port of a Service, for people
}

// put writes values as columns. Only put and read know the layout.
type put struct {
	buf []byte
	n   int
}

func (p *put) addr(a netip.Addr) *put {
	if a.Is4() {
		b := a.As4()
		p.n += copy(p.buf[p.n:], b[:])
	} else {
		b := a.As16()
		p.n += copy(p.buf[p.n:], b[:])
	}
	return p
}

func (p *put) proto(proto service.Protocol) *put {
	p.buf[p.n] = byte(proto)
	p.n += 4
	return p
}

func (p *put) port(port uint16) *put {
	binary.BigEndian.PutUint16(p.buf[p.n:], port)
	p.n += 4
	return p
}

func (p *put) number(n uint32) *put {
	binary.NativeEndian.PutUint32(p.buf[p.n:], n)
	p.n += 4
	return p
}

func (p *put) frontend(f service.Frontend) *put { return p.addr(f.Addr).proto(f.Protocol).port(f.Port) }

func (e *Element) key() *put  { return &put{buf: e.Key[:]} }
func (e *Element) data() *put { return &put{buf: e.Data[:]} }

func newElement(f service.Family, k SetKind) Element {
	return Element{ElementID: ElementID{Set: SetID{f, k}}}
}

// ServiceElement is the element of Services that gives a frontend the number of its shape.
func ServiceElement(f service.Frontend, shape Class, comment string) Element {
	e := FrontendElement(Services, f)
	e.data().number(uint32(shape))
	e.Comment = comment
	return e
}

// ShapeElement is the element of Shapes that leads from the number of a shape to its chain.
func ShapeElement(f service.Family, shape Class, chain string) Element {
	e := newElement(f, Shapes)
	e.key().number(uint32(shape))
	e.Chain = chain
	return e
}

// FrontendElement is an element of a set of frontends.
func FrontendElement(k SetKind, f service.Frontend) Element {
	e := newElement(service.FamilyOf(f.Addr), k)
	e.key().frontend(f)
	return e
}

// SlotElement gives the frontend's slot a backend.
func SlotElement(k SetKind, f service.Frontend, slot int, b service.Backend) Element {
	e := newElement(service.FamilyOf(f.Addr), k)
	e.key().frontend(f).number(uint32(slot))
	e.data().addr(b.Addr()).port(b.Port())
	return e
}

// StickySlotElement gives the frontend's slot the number of a backend.
func StickySlotElement(k SetKind, f service.Frontend, slot int, backend Class) Element {
	e := newElement(service.FamilyOf(f.Addr), k)
	e.key().frontend(f).number(uint32(slot))
	e.data().number(uint32(backend))
	return e
}

// StickyBackendID identifies the element of a frontend's number of a backend.
func StickyBackendID(k SetKind, f service.Frontend, backend Class) ElementID {
	e := newElement(service.FamilyOf(f.Addr), k)
	e.key().frontend(f).number(uint32(backend))
	return e.ElementID
}

// StickyBackendElement gives the frontend's number of a backend its address and port.
func StickyBackendElement(k SetKind, f service.Frontend, backend Class, b service.Backend) Element {
	e := Element{ElementID: StickyBackendID(k, f, backend)}
	e.data().addr(b.Addr()).port(b.Port())
	return e
}

// AddrElement returns an element whose key is n times the address.
func AddrElement(k SetKind, a netip.Addr, n int) Element {
	e := newElement(service.FamilyOf(a), k)
	for p := e.key(); n > 0; n-- {
		p.addr(a)
	}
	return e
}

// PrefixElement returns an element of an interval set whose only column is a prefix.
func PrefixElement(k SetKind, p netip.Prefix) Element {
	e := newElement(service.FamilyOf(p.Addr()), k)
	e.key().addr(p.Addr())
	e.Bits = uint8(p.Bits())
	return e
}

// SourceElement returns the element that admits sources to a frontend.
func SourceElement(f service.Frontend, p netip.Prefix) Element {
	e := newElement(service.FamilyOf(f.Addr), AllowedSources)
	e.key().frontend(f).addr(p.Addr())
	e.Bits = uint8(p.Bits())
	return e
}

// Values are the values in the columns of a key or of data.
type Values struct {
	Addrs    []netip.Addr
	Protocol service.Protocol
	Port     uint16
	Index    int   // ColumnIndex
	Class    Class // ColumnClass
}

// read returns the values in the columns of b.
func read(f service.Family, columns []Column, b []byte) Values {
	var v Values
	for _, c := range columns {
		switch c {
		case ColumnAddr:
			a, _ := netip.AddrFromSlice(b[:f.AddrSize()])
			v.Addrs = append(v.Addrs, a)
		case ColumnProto:
			v.Protocol = service.Protocol(b[0])
		case ColumnPort:
			v.Port = binary.BigEndian.Uint16(b)
		case ColumnIndex:
			v.Index = int(binary.NativeEndian.Uint32(b))
		case ColumnClass:
			v.Class = Class(binary.NativeEndian.Uint32(b))
		}
		b = b[c.Size(f):]
	}
	return v
}

// KeyValues returns the values in the element's key.
func (id ElementID) KeyValues() Values {
	return read(id.Set.Family, id.Set.Schema().Key, id.Key[:])
}

// DataValues returns the values in the element's data.
func (e Element) DataValues() Values {
	return read(e.Set.Family, e.Set.Schema().Data, e.Data[:])
}

// Frontend returns the frontend at the beginning of a key.
func (v Values) Frontend() service.Frontend {
	return service.Frontend{Addr: v.Addrs[0], Protocol: v.Protocol, Port: v.Port}
}

// Backend returns the backend in data.
func (v Values) Backend() service.Backend { return netip.AddrPortFrom(v.Addrs[0], v.Port) }

// numbered reports whether the last column of the key is a number in the host's byte order.
func (s *Schema) numbered() bool {
	last := s.Key[len(s.Key)-1]
	return last == ColumnIndex || last == ColumnClass
}

// Compare orders elements by table, set, key and prefix length: the same order
// on every machine, slots of a frontend ascending.
func (id ElementID) Compare(other ElementID) int {
	c := cmp.Or(cmp.Compare(id.Set.Family, other.Set.Family), cmp.Compare(id.Set.Kind, other.Set.Kind))
	if c != 0 {
		return c
	}
	size := id.Set.KeySize()
	if id.Set.Schema().numbered() {
		size -= 4
		if c := bytes.Compare(id.Key[:size], other.Key[:size]); c != 0 {
			return c
		}
		slot := binary.NativeEndian.Uint32(id.Key[size:])
		return cmp.Compare(slot, binary.NativeEndian.Uint32(other.Key[size:]))
	}
	return cmp.Or(bytes.Compare(id.Key[:size], other.Key[:size]), cmp.Compare(id.Bits, other.Bits))
}

// String returns the element as it stands between the braces of a set in nft's language.
func (e Element) String() string {
	var b strings.Builder
	schema := e.Set.Schema()
	writeColumns(&b, schema.Key, e.KeyValues())
	if schema.Interval {
		fmt.Fprintf(&b, "/%d", e.Bits)
	}
	if e.Comment != "" {
		fmt.Fprintf(&b, " comment %q", e.Comment)
	}
	switch {
	case schema.Verdict:
		b.WriteString(" : goto " + e.Chain)
	case schema.Data != nil:
		b.WriteString(" : ")
		writeColumns(&b, schema.Data, e.DataValues())
	}
	return b.String()
}

func writeColumns(b *strings.Builder, columns []Column, v Values) {
	addr := 0
	for i, c := range columns {
		if i > 0 {
			b.WriteString(" . ")
		}
		switch c {
		case ColumnAddr:
			b.WriteString(v.Addrs[addr].String())
			addr++
		case ColumnProto:
			b.WriteString(v.Protocol.String())
		case ColumnPort:
			fmt.Fprint(b, v.Port)
		case ColumnIndex:
			fmt.Fprint(b, v.Index)
		case ColumnClass:
			b.WriteString(v.Class.String())
		}
	}
}
