package trace

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
)

// rule returns the expressions of a rule in the words of nft. It knows what firewalls usually write; for the
// rest it names the kernel's expressions, so that the reader sees that there is more. nft -a list chain shows
// the rule as it was written.
func rule(family uint8, expressions []byte) string {
	w := words{registers: map[uint32]field{}}
	for _, e := range netlink.Attrs(expressions) {
		var name string
		var data []byte
		for typ, v := range netlink.Attrs(e) {
			switch typ {
			case unix.NFTA_EXPR_NAME:
				name = netlink.String(v)
			case unix.NFTA_EXPR_DATA:
				data = v
			}
		}
		w.expression(family, name, data)
	}
	return strings.Join(w.parts, " ")
}

// words are the words of a rule, and what its expressions have loaded into registers.
type words struct {
	parts     []string
	registers map[uint32]field
	protocol  string // that the rule has compared before: its ports have the name of it
}

func (w *words) add(format string, args ...any) {
	w.parts = append(w.parts, fmt.Sprintf(format, args...))
}

// expression adds an expression.
func (w *words) expression(family uint8, name string, data []byte) {
	parse := func(e expr.Any) bool { return expr.Unmarshal(family, data, e) == nil }
	var meta expr.Meta
	var ct expr.Ct
	var payload expr.Payload
	var fib expr.Fib
	var bitwise expr.Bitwise
	var compare expr.Cmp
	var lookup expr.Lookup
	var numgen expr.Numgen
	switch {
	case name == "meta" && parse(&meta):
		w.meta(meta)
	case name == "ct" && parse(&ct) && !ct.SourceRegister:
		w.load(ct.Register, ctField(ct.Key))
	case name == "payload" && parse(&payload) && payload.OperationType == expr.PayloadLoad:
		f := w.payloadField(family, payload)
		if n := len(w.parts); n > 0 && w.protocol != "" && w.parts[n-1] == "meta l4proto "+w.protocol &&
			strings.HasPrefix(f.name, w.protocol) {
			w.parts = w.parts[:n-1] // the name of the field says it, as in nft
		}
		w.load(payload.DestRegister, f)
	case name == "fib" && parse(&fib):
		w.load(fib.Register, fibField(fib))
	case name == "bitwise" && parse(&bitwise):
		w.load(bitwise.DestRegister, w.registers[word(bitwise.SourceRegister)].bitwise(bitwise))
	case name == "cmp" && parse(&compare):
		w.compare(compare)
	case name == "lookup" && parse(&lookup):
		w.lookup(lookup)
	case name == "numgen" && parse(&numgen):
		w.load(numgen.Register, numgenField(numgen))
	default:
		w.statement(family, name, data)
	}
}

// statement adds an expression that needs no register.
func (w *words) statement(family uint8, name string, data []byte) {
	parse := func(e expr.Any) bool { return expr.Unmarshal(family, data, e) == nil }
	var immediate expr.Immediate
	var verdict expr.Verdict
	var reject expr.Reject
	var log expr.Log
	var limit expr.Limit
	var nat expr.NAT
	switch {
	case name == "immediate" && parse(&immediate) && immediate.Register != unix.NFT_REG_VERDICT:
		w.load(immediate.Register, field{name: fmt.Sprintf("0x%x", immediate.Data), constants: immediate.Data})
	case name == "immediate" && parse(&verdict):
		text := verdictText(event{verdict: int32(verdict.Kind), target: verdict.Chain})
		w.add("%s", text)
	case name == "reject" && parse(&reject):
		w.add("%s", rejectText(reject))
	case name == "log" && parse(&log):
		w.add("log")
	case name == "limit" && parse(&limit):
		w.add("limit rate %d/%s", limit.Rate, unitText(limit.Unit))
	case name == "match", name == "target":
		w.add("xt %s %s", name, extension(data))
	case name == "nat" && parse(&nat):
		w.nat(nat)
	case name == "masq":
		w.add("masquerade")
	default:
		w.add("%s", name)
	}
}

// extension returns the name of an extension of iptables, which iptables-nft uses. The kernel has it in the
// first attribute of both (NFTA_MATCH_NAME, NFTA_TARGET_NAME).
func extension(data []byte) string {
	for typ, v := range netlink.Attrs(data) {
		if typ == 1 {
			return netlink.String(v)
		}
	}
	return ""
}

func rejectText(r expr.Reject) string {
	switch r.Type {
	case unix.NFT_REJECT_TCP_RST:
		return "reject with tcp reset"
	case unix.NFT_REJECT_ICMPX_UNREACH:
		return fmt.Sprintf("reject with icmpx %d", r.Code)
	}
	return fmt.Sprintf("reject with icmp %d", r.Code)
}

func unitText(u expr.LimitTime) string {
	switch u {
	case expr.LimitTimeSecond:
		return "second"
	case expr.LimitTimeMinute:
		return "minute"
	case expr.LimitTimeHour:
		return "hour"
	case expr.LimitTimeDay:
		return "day"
	}
	return "week"
}

// word returns the number of a register in words of 4 bytes: the registers 1 to 4 have 16 bytes each.
func word(register uint32) uint32 {
	if register >= unix.NFT_REG32_00 {
		return register - unix.NFT_REG32_00
	}
	return (register - unix.NFT_REG_1) * 4
}

func (w *words) load(register uint32, f field) { w.registers[word(register)] = f }

// meta adds an expression that loads or sets something of the packet.
func (w *words) meta(m expr.Meta) {
	if m.SourceRegister {
		to, f := w.registers[word(m.Register)], metaField(m.Key)
		if to.constants != nil {
			to.name = f.constant(to.constants)
		}
		w.add("%s set %s", f.name, to.name)
		return
	}
	w.load(m.Register, metaField(m.Key))
}

// compare adds a comparison of a register.
func (w *words) compare(c expr.Cmp) {
	f := w.registers[word(c.Register)]
	op := map[expr.CmpOp]string{expr.CmpOpNeq: "!= ", expr.CmpOpLt: "< ", expr.CmpOpLte: "<= ",
		expr.CmpOpGt: "> ", expr.CmpOpGte: ">= "}[c.Op]
	switch value, hidden := f.value(c.Data); {
	case hidden && op == "": // nft adds it where a field needs it, and does not print it
	case f.mask != nil && f.flags != nil && op == "!= " && zero(c.Data):
		w.add("%s %s", f.name, f.flags(f.mask))
	case f.mask != nil && !f.address():
		w.add("%s & %s %s%s", f.name, f.constant(f.mask), cmp.Or(op, "== "), value)
	default:
		w.add("%s %s%s", f.name, op, value)
	}
	if f.protocol && op == "" && len(c.Data) > 0 {
		w.protocol = protocolName(c.Data[0])
	}
}

// lookup adds the search of a set, or in a map, for what is in the registers from one on.
func (w *words) lookup(l expr.Lookup) {
	var names []string
	for at := word(l.SourceRegister); ; {
		f, ok := w.registers[at]
		if !ok {
			break
		}
		names = append(names, f.name)
		at += uint32(max(f.size, 4)+3) / 4
	}
	clear(w.registers)
	set := "@" + l.SetName
	if strings.HasPrefix(l.SetName, "__") { // nft's name for a set without one
		set = "{ ... }"
	}
	switch key := strings.Join(names, " . "); {
	case l.IsDestRegSet && l.DestRegister == unix.NFT_REG_VERDICT:
		w.add("%s vmap %s", key, set)
	case l.IsDestRegSet:
		w.load(l.DestRegister, field{name: key + " map " + set})
	case l.Invert:
		w.add("%s != %s", key, set)
	default:
		w.add("%s %s", key, set)
	}
}

// nat adds a translation.
func (w *words) nat(n expr.NAT) {
	name := "dnat"
	if n.Type == expr.NATTypeSourceNAT {
		name = "snat"
	}
	to, ok := w.registers[word(n.RegAddrMin)]
	port, hasPort := w.registers[word(n.RegProtoMin)]
	addr, isAddr := netip.AddrFromSlice(to.constants)
	switch {
	case n.RegAddrMin == 0 || !ok:
	case isAddr && n.RegProtoMin != 0 && hasPort && len(port.constants) == 2:
		name += " to " + netip.AddrPortFrom(addr, binary.BigEndian.Uint16(port.constants)).String()
	case isAddr:
		name += " to " + addr.String()
	default:
		name += " to " + to.name
	}
	w.add("%s", name)
}

func zero(data []byte) bool { return strings.Trim(string(data), "\x00") == "" }
