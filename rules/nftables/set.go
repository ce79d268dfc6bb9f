package nftables

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/nftproxy/nftproxy/rules/service"
)

// SetKind is a kind of set or map. A table has one set of each kind, except that it has any number of maps of
// the kind Affinity, see rules.Sticky.
type SetKind uint8

const (
	Services       SetKind = iota // frontend -> chain of its shape
	StickyServices                // sticky frontend -> chain of its shape, for clients without affinity
	RememberMap                   // sticky frontend -> chain that remembers the client
	Endpoints                     // frontend, slot -> backend
	LocalEndpoints                // the same for backends on this node
	ClusterIPs                    // ClusterIPs of Services
	ServiceCIDRs                  // ranges of ClusterIPs
	PodCIDRs                      // ranges of pods
	Hairpin                       // address of a backend on this node, twice
	Firewalled                    // load-balancer frontends with source ranges
	AllowedSources                // frontend, source range
	Affinity                      // client -> endpoint; filled by the kernel
)

// FixedSets returns the kinds that have one set in each table.
func FixedSets() []SetKind {
	return []SetKind{Services, StickyServices, RememberMap, Endpoints, LocalEndpoints,
		ClusterIPs, ServiceCIDRs, PodCIDRs, Hairpin, Firewalled, AllowedSources}
}

// String returns the name of the set in the table; for Affinity, the beginning of the names.
func (k SetKind) String() string {
	return [...]string{"services", "sticky-services", "remember", "endpoints", "local-endpoints",
		"cluster-ips", "service-cidrs", "pod-cidrs", "hairpin",
		"firewalled", "allowed-sources", "affinity"}[k]
}

// MaxSlots is the largest number of endpoints of a frontend.
const MaxSlots = 65536

// Column is the type of one part of a key or of data.
type Column uint8

const (
	ColumnAddr  Column = iota
	ColumnProto        // inet_proto, padded to 4 bytes
	ColumnPort         // inet_service, big endian, padded to 4 bytes
	ColumnIndex        // 32-bit integer in the host's byte order
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

// schemas are the layouts of the kinds. They are never written to.
var schemas = func() [Affinity + 1]Schema {
	addr := []Column{ColumnAddr}
	frontend := []Column{ColumnAddr, ColumnProto, ColumnPort}
	verdicts := Schema{Key: frontend, Verdict: true}
	slot := []Column{ColumnAddr, ColumnProto, ColumnPort, ColumnIndex}
	slots := Schema{Key: slot, Data: []Column{ColumnAddr, ColumnPort}}
	ranges := Schema{Key: addr, Interval: true}
	return [...]Schema{
		Services: verdicts, StickyServices: verdicts, RememberMap: verdicts,
		Endpoints: slots, LocalEndpoints: slots,
		ClusterIPs: {Key: addr}, ServiceCIDRs: ranges, PodCIDRs: ranges,
		Hairpin:        {Key: []Column{ColumnAddr, ColumnAddr}},
		Firewalled:     {Key: frontend},
		AllowedSources: {Key: []Column{ColumnAddr, ColumnProto, ColumnPort, ColumnAddr}, Interval: true},
		Affinity:       {Key: addr, Data: addr, Dynamic: true},
	}
}()

// Schema returns the layout of sets of the kind.
func (k SetKind) Schema() *Schema { return &schemas[k] }

// AffinitySize is the largest number of clients in one affinity map. If it is full, a new client is served,
// but not remembered.
const AffinitySize = 262144

// SetID is a kind of set in the table of a family.
type SetID struct {
	Family service.Family
	Kind   SetKind
}

// Set is a set or map in a table.
type Set struct {
	ID   SetID
	Name string
}

// Compare orders sets by table, kind and name.
func (s Set) Compare(t Set) int {
	return cmp.Or(cmp.Compare(s.ID.Family, t.ID.Family), cmp.Compare(s.ID.Kind, t.ID.Kind),
		cmp.Compare(s.Name, t.Name))
}

// KeySize returns the size of the set's keys in bytes.
func (id SetID) KeySize() int { return columnsSize(id.Family, id.Kind.Schema().Key) }

// DataSize returns the size of a map's data in bytes, 0 for sets and verdict maps.
func (id SetID) DataSize() int { return columnsSize(id.Family, id.Kind.Schema().Data) }

func columnsSize(f service.Family, columns []Column) int {
	size := 0
	for _, c := range columns {
		size += c.Size(f)
	}
	return size
}

// Definition returns the lines that define the set. nft has no name for the type of an index, so the
// definition of a set with an index has expressions of the types.
func (s Set) Definition() []string {
	schema, f := s.ID.Kind.Schema(), s.ID.Family
	line := "type " + typeText(schema.Key, f)
	switch {
	case schema.Verdict:
		line += " : verdict"
	case s.ID.Kind == Endpoints || s.ID.Kind == LocalEndpoints:
		backend := []Field{DstAddr, DstPort}
		line = fmt.Sprintf("typeof %s : %s", keyText(SlotKey(MaxSlots), f), keyText(backend, f))
	case schema.Data != nil:
		line += " : " + typeText(schema.Data, f)
	}
	lines := []string{line}
	if schema.Dynamic {
		lines = append(lines, fmt.Sprintf("size %d", AffinitySize), "flags dynamic,timeout")
	}
	if schema.Interval {
		lines = append(lines, "flags interval")
	}
	return lines
}

func typeText(columns []Column, f service.Family) string {
	parts := make([]string, len(columns))
	for i, c := range columns {
		parts[i] = [...]string{f.AddrType(), "inet_proto", "inet_service", "mark"}[c]
	}
	return strings.Join(parts, " . ")
}

// Requires returns the kernel options, modules and version that the set needs.
func (s Set) Requires() string {
	if schema := s.ID.Kind.Schema(); schema.Interval && len(schema.Key) > 1 {
		return core + ", Linux 5.6 for concatenated intervals"
	}
	return core
}

// Keyword returns map or set.
func (s Set) Keyword() string {
	if schema := s.ID.Kind.Schema(); schema.Verdict || schema.Data != nil {
		return "map"
	}
	return "set"
}
