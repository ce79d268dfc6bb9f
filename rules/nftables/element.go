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

func (p *put) index(i int) {
	binary.NativeEndian.PutUint32(p.buf[p.n:], uint32(i))
	p.n += 4
}

func (p *put) frontend(f service.Frontend) *put { return p.addr(f.Addr).proto(f.Protocol).port(f.Port) }

func (e *Element) key() *put  { return &put{buf: e.Key[:]} }
func (e *Element) data() *put { return &put{buf: e.Data[:]} }

func newElement(f service.Family, k SetKind) Element {
	return Element{ElementID: ElementID{Set: SetID{f, k}}}
}

// frontendElement is an element whose key is a frontend.
func FrontendElement(k SetKind, f service.Frontend, chain, comment string) Element {
	e := newElement(service.FamilyOf(f.Addr), k)
	e.key().frontend(f)
	e.Chain, e.Comment = chain, comment
	return e
}

// slotElement gives the frontend's slot a backend.
func SlotElement(k SetKind, f service.Frontend, slot int, b service.Backend) Element {
	e := newElement(service.FamilyOf(f.Addr), k)
	e.key().frontend(f).index(slot)
	e.data().addr(b.Addr()).port(b.Port())
	return e
}

// addrElement is an element whose key is n times the address.
func AddrElement(k SetKind, a netip.Addr, n int) Element {
	e := newElement(service.FamilyOf(a), k)
	for p := e.key(); n > 0; n-- {
		p.addr(a)
	}
	return e
}

// prefixElement is an element of an interval set whose only column is a prefix.
func PrefixElement(k SetKind, p netip.Prefix) Element {
	e := newElement(service.FamilyOf(p.Addr()), k)
	e.key().addr(p.Addr())
	e.Bits = uint8(p.Bits())
	return e
}

// sourceElement admits the sources to the frontend.
func SourceElement(f service.Frontend, p netip.Prefix) Element {
	e := newElement(service.FamilyOf(f.Addr), AllowedSources)
	e.key().frontend(f).addr(p.Addr())
	e.Bits = uint8(p.Bits())
	return e
}

// Values are the columns of a key or of data, read back.
type Values struct {
	Addrs    []netip.Addr
	Protocol service.Protocol
	Port     uint16
	Index    int
}

// read takes the columns out of b.
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
func (v Values) Frontend() service.Frontend {
	return service.Frontend{Addr: v.Addrs[0], Protocol: v.Protocol, Port: v.Port}
}

// backend returns the backend that data holds.
func (v Values) Backend() service.Backend { return netip.AddrPortFrom(v.Addrs[0], v.Port) }

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

// String prints the element as it stands between the braces of a set.
func (e Element) String() string {
	var b strings.Builder
	schema := e.Set.Kind.Schema()
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
		}
	}
}
