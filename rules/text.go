package rules

import (
	"fmt"
	"strings"
)

// Text returns the rule in nft's language, for the table of the family.
func (r Rule) Text(f Family) string {
	parts := make([]string, len(r))
	for i, s := range r {
		parts[i] = statementText(s, f)
	}
	return strings.Join(parts, " ")
}

func statementText(s Statement, f Family) string {
	switch s := s.(type) {
	case Jump:
		return "jump " + s.Chain
	case Drop:
		return "drop"
	case Reject:
		return "reject"
	case Reset:
		return "reject with tcp reset"
	case Masquerade:
		return "masquerade fully-random"
	case SetMark:
		return fmt.Sprintf("meta mark set meta mark | 0x%08x", s.Mask)
	case ClearMark:
		return fmt.Sprintf("meta mark set meta mark ^ 0x%08x", s.Mask)
	case HasMark:
		return fmt.Sprintf("meta mark & 0x%08x != 0x00000000", s.Mask)
	case InSet:
		return keyText(s.Key, f) + " " + not(s.Not) + "@" + s.Set
	case Dispatch:
		return keyText(s.Key, f) + " vmap @" + s.Map
	case DNAT:
		text := fmt.Sprintf("dnat %s to %s map @%s", f, keyText(s.Key, f), s.Map)
		if s.Port != 0 {
			text += fmt.Sprintf(" : %d", s.Port)
		}
		return text
	case Remember:
		return fmt.Sprintf("update @%s { %s timeout %ds : %s }", s.Map, fieldText(SrcAddr, f), int(s.Timeout.Seconds()), fieldText(DstAddr, f))
	case Translated:
		return "ct status dnat"
	case AddrLocal:
		return "fib " + map[Field]string{SrcAddr: "saddr", DstAddr: "daddr"}[s.Addr] + " type " + not(s.Not) + "local"
	case Interface:
		return fmt.Sprintf("iifname %s%q", not(s.Not), s.Name)
	case IsProtocol:
		return fmt.Sprintf("meta l4proto %s", s.Protocol)
	case IsPort:
		return fmt.Sprintf("%s dport %s%d", s.Protocol, not(s.Not), s.Port)
	}
	panic(fmt.Sprintf("rules: statement %T has no text", s))
}

func not(not bool) string {
	if not {
		return "!= "
	}
	return ""
}

func keyText(key []Field, f Family) string {
	parts := make([]string, len(key))
	for i, field := range key {
		parts[i] = fieldText(field, f)
	}
	return strings.Join(parts, " . ")
}

func fieldText(field Field, f Family) string {
	switch field {
	case SrcAddr:
		return f.String() + " saddr"
	case DstAddr:
		return f.String() + " daddr"
	case L4Proto:
		return "meta l4proto"
	case CtProto:
		return "ct protocol"
	case DstPort:
		return "th dport"
	case OrigDstAddr:
		return "ct original " + f.String() + " daddr"
	case OrigDstPort:
		return "ct original proto-dst"
	}
	return fmt.Sprintf("numgen random mod %d", field.RandomMod())
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

// definition returns the lines that define the set. An index has no type that
// nft could name, so such sets are defined by expressions of that type.
func (s Set) definition() []string {
	schema, f := s.ID.Kind.Schema(), s.ID.Family
	line := "type " + typeText(schema.Key, f)
	switch {
	case schema.Verdict:
		line += " : verdict"
	case s.ID.Kind == Endpoints || s.ID.Kind == LocalEndpoints:
		line = fmt.Sprintf("typeof %s : %s", keyText(slotKey(MaxSlots), f), keyText([]Field{DstAddr, DstPort}, f))
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

func typeText(columns []Column, f Family) string {
	parts := make([]string, len(columns))
	for i, c := range columns {
		parts[i] = [...]string{f.AddrType(), "inet_proto", "inet_service", "mark"}[c]
	}
	return strings.Join(parts, " . ")
}

// keyword is map or set.
func (s Set) keyword() string {
	if schema := s.ID.Kind.Schema(); schema.Verdict || schema.Data != nil {
		return "map"
	}
	return "set"
}

// head returns the line that defines a base chain, and "" for other chains.
func (c Chain) head() string {
	if c.Hook == nil {
		return ""
	}
	return fmt.Sprintf("type nat hook %s priority %d; policy accept;", c.Hook.Name, c.Hook.Priority)
}
