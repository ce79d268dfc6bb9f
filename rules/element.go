package rules

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"net/netip"
)

// Key is an element's key in the kernel's layout: the columns of the set's
// schema one after the other, each padded to 4 bytes, the rest zero.
type Key [40]byte

// Data is the data of a map's element in the same layout.
type Data [20]byte

// ElementID is what makes an element the same element.
type ElementID struct {
	Set  SetID
	Key  Key
	Bits uint8 // interval sets: prefix length of the key's last column
}

// Element is an element of a set or map.
type Element struct {
	ElementID
	Data    Data   // maps but verdict maps
	Chain   string // verdict maps: the chain to go to
	Comment string // the ServicePort, for people
}

// put writes the values of a column layout; it is the one place that knows the layout.
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

func (p *put) proto(proto Protocol) *put {
	p.buf[p.n] = byte(proto)
	p.n += 4
	return p
}

func (p *put) port(port uint16) *put {
	binary.BigEndian.PutUint16(p.buf[p.n:], port)
	p.n += 4
	return p
}

func (p *put) index(i int) {
	binary.NativeEndian.PutUint32(p.buf[p.n:], uint32(i))
	p.n += 4
}

func (p *put) frontend(f Frontend) *put { return p.addr(f.Addr).proto(f.Protocol).port(f.Port) }

func (e *Element) key() *put  { return &put{buf: e.Key[:]} }
func (e *Element) data() *put { return &put{buf: e.Data[:]} }

func newElement(f Family, k SetKind) Element {
	return Element{ElementID: ElementID{Set: SetID{f, k}}}
}

// frontendElement is an element whose key is a frontend.
func frontendElement(k SetKind, f Frontend, chain, comment string) Element {
	e := newElement(FamilyOf(f.Addr), k)
	e.key().frontend(f)
	e.Chain, e.Comment = chain, comment
	return e
}

// slotElement gives the frontend's slot a backend.
func slotElement(k SetKind, f Frontend, slot int, b Backend) Element {
	e := newElement(FamilyOf(f.Addr), k)
	e.key().frontend(f).index(slot)
	e.data().addr(b.Addr()).port(b.Port())
	return e
}

// addrElement is an element whose key is n times the address.
func addrElement(k SetKind, a netip.Addr, n int) Element {
	e := newElement(FamilyOf(a), k)
	for p := e.key(); n > 0; n-- {
		p.addr(a)
	}
	return e
}

// prefixElement is an element of an interval set whose only column is a prefix.
func prefixElement(k SetKind, p netip.Prefix) Element {
	e := newElement(FamilyOf(p.Addr()), k)
	e.key().addr(p.Addr())
	e.Bits = uint8(p.Bits())
	return e
}

// sourceElement admits the sources to the frontend.
func sourceElement(f Frontend, p netip.Prefix) Element {
	e := newElement(FamilyOf(f.Addr), AllowedSources)
	e.key().frontend(f).addr(p.Addr())
	e.Bits = uint8(p.Bits())
	return e
}

// Values are the columns of a key or of data, read back.
type Values struct {
	Addrs    []netip.Addr
	Protocol Protocol
	Port     uint16
	Index    int
}

// read takes the columns out of b.
func read(f Family, columns []Column, b []byte) Values {
	var v Values
	for _, c := range columns {
		switch c {
		case ColumnAddr:
			a, _ := netip.AddrFromSlice(b[:f.AddrSize()])
			v.Addrs = append(v.Addrs, a)
		case ColumnProto:
			v.Protocol = Protocol(b[0])
		case ColumnPort:
			v.Port = binary.BigEndian.Uint16(b)
		case ColumnIndex:
			v.Index = int(binary.NativeEndian.Uint32(b))
		}
		b = b[c.Size(f):]
	}
	return v
}

// KeyValues returns the columns of the element's key.
func (id ElementID) KeyValues() Values {
	return read(id.Set.Family, id.Set.Kind.Schema().Key, id.Key[:])
}

// DataValues returns the columns of the element's data.
func (e Element) DataValues() Values {
	return read(e.Set.Family, e.Set.Kind.Schema().Data, e.Data[:])
}

// frontend returns the frontend that the key begins with.
func (v Values) frontend() Frontend { return Frontend{v.Addrs[0], v.Protocol, v.Port} }

// backend returns the backend that data holds.
func (v Values) backend() Backend { return netip.AddrPortFrom(v.Addrs[0], v.Port) }

// Compare orders elements by table, set, key and prefix length: the same order
// on every machine, slots of a frontend ascending.
func (id ElementID) Compare(other ElementID) int {
	if c := cmp.Or(cmp.Compare(id.Set.Family, other.Set.Family), cmp.Compare(id.Set.Kind, other.Set.Kind)); c != 0 {
		return c
	}
	size := id.Set.KeySize()
	if k := id.Set.Kind; k == Endpoints || k == LocalEndpoints {
		size -= 4
		if c := bytes.Compare(id.Key[:size], other.Key[:size]); c != 0 {
			return c
		}
		return cmp.Compare(binary.NativeEndian.Uint32(id.Key[size:]), binary.NativeEndian.Uint32(other.Key[size:]))
	}
	return cmp.Or(bytes.Compare(id.Key[:size], other.Key[:size]), cmp.Compare(id.Bits, other.Bits))
}
