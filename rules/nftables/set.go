package nftables

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/nftproxy/nftproxy/rules/service"
)

// SetKind is one of the sets and maps that each table has.
type SetKind uint8

const (
	Services            SetKind = iota // frontend -> number of its shape
	Shapes                             // number of a shape -> its chain
	Endpoints                          // frontend, slot -> backend
	LocalEndpoints                     // the same for backends on this node
	StickySlots                        // frontend with session affinity, slot -> number of a backend
	StickyBackends                     // frontend with session affinity, number of a backend -> backend
	StickyLocalSlots                   // the same for backends on this node
	StickyLocalBackends                // the same for backends on this node
	Affinity                           // client, frontend -> number of a backend; filled by the kernel
	ClusterIPs                         // ClusterIPs of Services
	ServiceCIDRs                       // ranges of ClusterIPs
	PodCIDRs                           // ranges of pods
	Hairpin                            // backend on this node, itself
	Firewalled                         // load-balancer frontends with source ranges
	AllowedSources                     // frontend, source range
)

// setNames are the names of the sets in the tables.
var setNames = [...]string{
	"services", "shapes", "endpoints", "local-endpoints",
	"sticky-slots", "sticky-backends", "sticky-local-slots", "sticky-local-backends", "affinity",
	"cluster-ips", "service-cidrs", "pod-cidrs", "hairpin", "firewalled", "allowed-sources",
}

// SetKinds returns all kinds, in the order in which they are programmed and printed.
func SetKinds() []SetKind {
	kinds := make([]SetKind, len(setNames))
	for i := range kinds {
		kinds[i] = SetKind(i)
	}
	return kinds
}

// String returns the name of the set in the table.
func (k SetKind) String() string { return setNames[k] }

// MaxSlots is how many endpoints one frontend can have, and MaxLocalSlots how many on this node: the number
// of a shape has so many bits for them.
const (
	MaxSlots      = 65535
	MaxLocalSlots = 4095
)

// SlotModulus bounds the random numbers of slots in the definitions of maps.
const SlotModulus = 65536

// Column is the type of one part of a key or of data.
type Column uint8

const (
	ColumnAddr  Column = iota
	ColumnProto        // inet_proto, padded to 4 bytes
	ColumnPort         // inet_service, big endian, padded to 4 bytes
	ColumnIndex        // 32-bit integer in the host's byte order
	ColumnClass        // 32-bit number in the host's byte order that nft prints as major:minor
)

// Size returns the column's size in a key, with the padding of concatenations.
func (c Column) Size(f service.Family) int {
	if c == ColumnAddr {
		return f.AddrSize()
	}
	return 4
}

// Schema is the layout of a set.
type Schema struct {
	Key      []Column
	Data     []Column // nil: a set, or a verdict map
	Verdict  bool
	Interval bool // the last column of the key is a prefix
	Dynamic  bool // rules add elements, with timeouts
}

// schemas are the layouts of the kinds, for Affinity that of IPv4; hashed is that of IPv6. Nobody writes to
// them.
var schemas, hashed = func() ([len(setNames)]Schema, Schema) {
	addr, class := []Column{ColumnAddr}, []Column{ColumnClass}
	frontend := []Column{ColumnAddr, ColumnProto, ColumnPort}
	and := func(c Column) []Column { return append(frontend[:3:3], c) }
	backend := []Column{ColumnAddr, ColumnPort}
	endpoints := Schema{Key: and(ColumnIndex), Data: backend}
	stickySlots := Schema{Key: and(ColumnIndex), Data: class}
	stickyBackends := Schema{Key: and(ColumnClass), Data: backend}
	ranges := Schema{Key: addr, Interval: true}
	return [...]Schema{
		Services: {Key: frontend, Data: class}, Shapes: {Key: class, Verdict: true},
		Endpoints: endpoints, LocalEndpoints: endpoints,
		StickySlots: stickySlots, StickyBackends: stickyBackends,
		StickyLocalSlots: stickySlots, StickyLocalBackends: stickyBackends,
		Affinity:   {Key: append(addr[:1:1], frontend...), Data: class, Dynamic: true},
		ClusterIPs: {Key: addr}, ServiceCIDRs: ranges, PodCIDRs: ranges,
		Hairpin:        {Key: []Column{ColumnAddr, ColumnAddr}},
		Firewalled:     {Key: frontend},
		AllowedSources: {Key: and(ColumnAddr), Interval: true},
	}, Schema{Key: []Column{ColumnIndex}, Data: class, Dynamic: true}
}()

// Schema returns the layout of the set.
func (id SetID) Schema() *Schema {
	if id.Kind == Affinity && id.Family == service.IPv6 {
		return &hashed
	}
	return &schemas[id.Kind]
}

// AffinitySize is how many clients a table remembers, of all Services together. When the map is full a new
// client is served, but not remembered.
const AffinitySize = 524288

// SetID is a kind of set in the table of a family.
type SetID struct {
	Family service.Family
	Kind   SetKind
}

// Set is a set or map in a table.
type Set struct {
	ID   SetID
	Name string
	// Counter gives every element a counter of the lookups that find it. The rules look a key up for the first
	// packet of a connection only.
	Counter bool
}

// Compare orders sets by table, kind and name.
func (s Set) Compare(t Set) int {
	return cmp.Or(cmp.Compare(s.ID.Family, t.ID.Family), cmp.Compare(s.ID.Kind, t.ID.Kind),
		cmp.Compare(s.Name, t.Name))
}

// KeySize returns the size of the set's keys in bytes.
func (id SetID) KeySize() int { return columnsSize(id.Family, id.Schema().Key) }

// DataSize returns the size of a map's data in bytes, 0 for sets and verdict maps.
func (id SetID) DataSize() int { return columnsSize(id.Family, id.Schema().Data) }

func columnsSize(f service.Family, columns []Column) int {
	size := 0
	for _, c := range columns {
		size += c.Size(f)
	}
	return size
}

// Definition returns the lines that define the set. nft has no name for the type of an index, so it is
// defined by an expression of that type; then all columns are.
func (s Set) Definition() []string {
	schema, f := s.ID.Schema(), s.ID.Family
	line := "type " + typeText(schema.Key, f)
	switch {
	case schema.Verdict:
		line += " : verdict"
	case schema.Indexed():
		line = "typeof " + typeofText(schema.Key, f) + " : " + typeofText(schema.Data, f)
	case schema.Data != nil:
		line += " : " + typeText(schema.Data, f)
	}
	lines := []string{line}
	if s.Counter {
		lines = append(lines, "counter")
	}
	if schema.Dynamic {
		lines = append(lines, fmt.Sprintf("size %d", AffinitySize), "flags dynamic,timeout")
	}
	if schema.Interval {
		lines = append(lines, "flags interval")
	}
	return lines
}

// Indexed reports whether the last column of the key is an index.
func (s *Schema) Indexed() bool { return s.Key[len(s.Key)-1] == ColumnIndex }

// typeofText returns expressions of the types of the columns.
func typeofText(columns []Column, f service.Family) string {
	fields := make([]Field, len(columns))
	for i, c := range columns {
		fields[i] = [...]Field{DstAddr, L4Proto, DstPort, Random(SlotModulus), Priority}[c]
	}
	return keyText(fields, f)
}

func typeText(columns []Column, f service.Family) string {
	parts := make([]string, len(columns))
	for i, c := range columns {
		parts[i] = [...]string{f.AddrType(), "inet_proto", "inet_service", "mark", "classid"}[c]
	}
	return strings.Join(parts, " . ")
}

// Requires returns the kernel options, modules and version that the set needs.
func (s Set) Requires() string {
	if s.Counter {
		return "CONFIG_NFT_COUNTER (module nft_counter)"
	}
	if schema := s.ID.Schema(); schema.Interval && len(schema.Key) > 1 {
		return core + ", Linux 5.6 for concatenated intervals"
	}
	return core
}

// Keyword returns map or set.
func (s Set) Keyword() string {
	if schema := s.ID.Schema(); schema.Verdict || schema.Data != nil {
		return "map"
	}
	return "set"
}
