package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/nftables"
)

// MarkRule is a rule of another program that sets or clears a bit of the packet mark.
type MarkRule struct {
	Family, Table, Chain string
	Sets                 bool // it sets the bit; false: it clears it
}

// MarkRules returns the rules of other programs that change the bits of the packet mark by which nftproxy
// asks itself to masquerade, and that meet a packet at a place where this matters: one for each chain. It
// reads all rules of the tables, 20,000 in 0.2 s. It leaves out kube-proxy's, which use the same bit for the same purpose, and
// rules that take the mark from elsewhere, as from the connection: what these set is not known.
func MarkRules(c *netlink.Conn, tables []Table, bits uint32) (found []MarkRule, err error) {
	for _, t := range tables {
		f := slices.IndexFunc(tableFamilies(), func(f tableFamily) bool { return f.name == t.Family })
		if t.Name == nftables.TableName || t.Name == "kube-proxy" || !t.SeesIP() {
			continue
		}
		err := c.Dump(unix.NFT_MSG_GETRULE, tableFamilies()[f].number, t.Name, "", func(attributes []byte) error {
			chain, change := markChange(attributes)
			if change == unchanged() {
				return nil
			}
			r := MarkRule{t.Family, t.Name, chain, change.sets(bits)}
			if !r.Sets && !(change.clears(bits) && t.betweenRules(chain)) ||
				strings.HasPrefix(chain, "KUBE-") || slices.Contains(found, r) {
				return nil
			}
			found = append(found, r)
			return nil
		})
		if uninterrupted(err) != nil {
			return nil, fmt.Errorf("list rules of table %s %s: %w", t.Family, t.Name, err)
		}
	}
	return found, nil
}

// SeesIP reports whether the table has chains that see IP packets.
func (t Table) SeesIP() bool {
	isBase := func(c TableChain) bool { return c.Hook != nil && c.Hook.Name != "" }
	return (t.Family == "ip" || t.Family == "ip6" || t.Family == "inet") && slices.ContainsFunc(t.Chains, isBase)
}

// betweenRules reports whether a chain may see a packet between the rules of nftproxy that set the mark, at
// prerouting or output -100, and those that masquerade, at postrouting 100. Where another chain leads to it
// is not known.
func (t Table) betweenRules(chain string) bool {
	i := slices.IndexFunc(t.Chains, func(c TableChain) bool { return c.Name == chain })
	if i < 0 || t.Chains[i].Hook == nil {
		return true
	}
	switch hook := t.Chains[i].Hook; hook.Name {
	case "prerouting", "output":
		return hook.Priority >= -100
	case "postrouting":
		return hook.Priority <= 100
	}
	return true
}

// bitChange is what a rule makes of a value: (value & keep) ^ flip. The zero value of keep and flip is the
// constant 0.
type bitChange struct{ keep, flip uint32 }

func unchanged() bitChange { return bitChange{keep: ^uint32(0)} }

// sets reports whether a bit is set in a packet in which it was not.
func (c bitChange) sets(bits uint32) bool   { return c.flip&bits != 0 }
func (c bitChange) clears(bits uint32) bool { return c.keep&bits == 0 && c.flip&bits == 0 }

// markChange returns what a rule makes of the packet mark, and if that is something its chain.
func markChange(attributes []byte) (chain string, change bitChange) {
	var named []byte
	change = unchanged()
	for typ, v := range netlink.Attrs(attributes) {
		switch typ {
		case unix.NFTA_RULE_CHAIN:
			named = v
		case unix.NFTA_RULE_EXPRESSIONS:
			if !mayMark(v) {
				continue // most rules: to follow them takes memory
			}
			registers := map[uint32]bitChange{}
			for _, e := range netlink.Attrs(v) {
				if c, ok := applyMark(registers, parseExpression(e)); ok {
					change = c
				}
			}
		}
	}
	if change != unchanged() {
		chain = netlink.String(named)
	}
	return chain, change
}

// mayMark reports whether one of the expressions may write the mark: meta with a source register, or a target
// of iptables.
func mayMark(expressions []byte) bool {
	for _, e := range netlink.Attrs(expressions) {
		var name, data []byte
		for typ, v := range netlink.Attrs(e) {
			switch typ {
			case unix.NFTA_EXPR_NAME:
				name = bytes.TrimRight(v, "\x00")
			case unix.NFTA_EXPR_DATA:
				data = v
			}
		}
		switch string(name) {
		case "target":
			return true
		case "meta":
			for typ := range netlink.Attrs(data) {
				if typ == unix.NFTA_META_SREG {
					return true
				}
			}
		}
	}
	return false
}

// expression is one of a rule, with its attributes by type.
type expression struct {
	name string
	data map[uint16][]byte
}

func parseExpression(attributes []byte) expression {
	e := expression{data: map[uint16][]byte{}}
	for typ, v := range netlink.Attrs(attributes) {
		switch typ {
		case unix.NFTA_EXPR_NAME:
			e.name = netlink.String(v)
		case unix.NFTA_EXPR_DATA:
			for typ, v := range netlink.Attrs(v) {
				e.data[typ] = v
			}
		}
	}
	return e
}

func (e expression) number(typ uint16) uint32 {
	if v := e.data[typ]; len(v) >= 4 {
		return netlink.Uint32(v)
	}
	return 0
}

// value returns 4 bytes of data in the byte order of the host, which the mark has in a register.
func (e expression) value(typ uint16) (uint32, bool) {
	for typ, v := range netlink.Attrs(e.data[typ]) {
		if typ == unix.NFTA_DATA_VALUE && len(v) == 4 {
			return binary.NativeEndian.Uint32(v), true
		}
	}
	return 0, false
}

// applyMark follows an expression. It returns true if that writes the mark, from something that is known.
func applyMark(registers map[uint32]bitChange, e expression) (bitChange, bool) {
	switch e.name {
	case "immediate":
		delete(registers, e.number(unix.NFTA_IMMEDIATE_DREG))
		if v, ok := e.value(unix.NFTA_IMMEDIATE_DATA); ok {
			registers[e.number(unix.NFTA_IMMEDIATE_DREG)] = bitChange{flip: v}
		}
	case "bitwise":
		from, known := registers[e.number(unix.NFTA_BITWISE_SREG)]
		mask, hasMask := e.value(unix.NFTA_BITWISE_MASK)
		xor, hasXor := e.value(unix.NFTA_BITWISE_XOR)
		delete(registers, e.number(unix.NFTA_BITWISE_DREG))
		if known && hasMask && hasXor {
			registers[e.number(unix.NFTA_BITWISE_DREG)] = bitChange{from.keep & mask, from.flip&mask ^ xor}
		}
	case "meta":
		if e.number(unix.NFTA_META_KEY) == unix.NFT_META_MARK && e.data[unix.NFTA_META_SREG] != nil {
			c, known := registers[e.number(unix.NFTA_META_SREG)]
			return c, known
		}
		if to := e.number(unix.NFTA_META_DREG); e.number(unix.NFTA_META_KEY) == unix.NFT_META_MARK {
			registers[to] = unchanged()
		} else {
			delete(registers, to)
		}
	case "target":
		return xtMark(e)
	default:
		clear(registers) // it may write any of them
	}
	return bitChange{}, false
}

// xtMark returns what the target MARK of iptables does, in its revision 2: struct xt_mark_tginfo2 of
// linux/netfilter/xt_mark.h.
func xtMark(e expression) (bitChange, bool) {
	const name, info = 1, 3 // NFTA_TARGET_NAME, NFTA_TARGET_INFO of linux/netfilter/nf_tables_compat.h
	v := e.data[info]
	if netlink.String(e.data[name]) != "MARK" || len(v) < 8 {
		return bitChange{}, false
	}
	return bitChange{keep: ^binary.NativeEndian.Uint32(v[4:]), flip: binary.NativeEndian.Uint32(v)}, true
}
