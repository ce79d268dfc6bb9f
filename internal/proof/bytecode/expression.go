package bytecode

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
)

// expression is one expression of a rule. run does what the kernel's eval function does: it reads and writes
// registers, or sets the code of the way. An error means that the packet met something that is not known.
type expression interface{ run(w *way) }

// registers are the 20 words of struct nft_regs: 4 for the verdict and 16 for data.
type registers [80]byte

// register returns the offset of a register: NFT_REG_1 to NFT_REG_4 are 16 bytes each, and NFT_REG32_00 and
// the following the same bytes in words of 4 (nft_parse_register).
func register(attribute []byte) (int, error) {
	n := int(netlink.Uint32(attribute))
	at := n * 16
	if n >= unix.NFT_REG32_00 {
		at = 16 + (n-unix.NFT_REG32_00)*4
	}
	if n > unix.NFT_REG32_15 || n > unix.NFT_REG_4 && n < unix.NFT_REG32_00 {
		return 0, fmt.Errorf("register %d is not known", n)
	}
	return at, nil
}

func (r *registers) store32(at int, v uint32) { binary.NativeEndian.PutUint32(r[at:], v) }

func (r *registers) load32(at int) uint32 { return binary.NativeEndian.Uint32(r[at:]) }

// store writes bytes and pads them to a word.
func (r *registers) store(at int, b []byte) {
	n := copy(r[at:], b)
	clear(r[at+n : min(len(r), at+(n+3)&^3)])
}

// parser reads the attributes of an expression and keeps the first error.
type parser struct {
	table *Table
	name  string
	attrs map[uint16][]byte
	err   error
}

// expression parses an expression.
func (t *Table) expression(name string, a map[uint16][]byte) (expression, error) {
	p := &parser{table: t, name: name, attrs: a}
	x := p.parse()
	if p.err != nil {
		return nil, fmt.Errorf("expression %s: %w", name, p.err)
	}
	return x, nil
}

func (p *parser) parse() expression {
	switch p.name {
	case "counter":
		return nothing{}
	case "immediate":
		return p.immediate()
	case "cmp":
		return compare{p.register(unix.NFTA_CMP_SREG), p.number(unix.NFTA_CMP_OP), p.value(unix.NFTA_CMP_DATA)}
	case "range":
		return between{p.register(unix.NFTA_RANGE_SREG), p.number(unix.NFTA_RANGE_OP),
			p.value(unix.NFTA_RANGE_FROM_DATA), p.value(unix.NFTA_RANGE_TO_DATA)}
	case "bitwise":
		return p.bitwise()
	case "payload":
		return p.payload()
	case "meta":
		return p.meta()
	case "ct":
		return p.ct()
	case "fib":
		return p.fib()
	case "lookup":
		return p.lookup()
	case "dynset":
		return p.dynset()
	case "numgen":
		return random{p.register(unix.NFTA_NG_DREG), p.number(unix.NFTA_NG_MODULUS), p.number(unix.NFTA_NG_OFFSET)}
	case "hash":
		return p.hash()
	case "nat":
		return p.nat()
	case "masq":
		return masquerade{}
	case "reject":
		return p.reject()
	}
	p.refuse("is not known")
	return nil
}

func (p *parser) refuse(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf(format, args...)
	}
}

func (p *parser) number(attribute uint16) uint32 { return netlink.Uint32(p.attrs[attribute]) }

func (p *parser) has(attribute uint16) bool { _, has := p.attrs[attribute]; return has }

func (p *parser) value(attribute uint16) []byte { return value(p.attrs[attribute]) }

func (p *parser) register(attribute uint16) int {
	at, err := register(p.attrs[attribute])
	if err != nil {
		p.refuse("%w", err)
	}
	return at
}

// nothing is an expression that does nothing to a packet.
type nothing struct{}

func (nothing) run(*way) {}

// immediate writes a value.
type immediate struct {
	to   int
	data []byte
}

func (p *parser) immediate() expression {
	nested := attrs(p.attrs[unix.NFTA_IMMEDIATE_DATA])
	if v, has := nested[unix.NFTA_DATA_VERDICT]; has {
		verdict, err := p.table.verdict(v)
		if err != nil {
			p.refuse("%w", err)
		}
		return verdict
	}
	return immediate{p.register(unix.NFTA_IMMEDIATE_DREG), bytes.Clone(nested[unix.NFTA_DATA_VALUE])}
}

func (x immediate) run(w *way) { w.registers.store(x.to, x.data) }

// verdict ends the rule.
type verdict struct {
	code  int32
	chain *Chain
}

func (t *Table) verdict(nested []byte) (*verdict, error) {
	a := attrs(nested)
	v := &verdict{code: int32(netlink.Uint32(a[unix.NFTA_VERDICT_CODE]))}
	switch v.code {
	case unix.NFT_CONTINUE, unix.NFT_RETURN, verdictAccept, verdictDrop:
	case unix.NFT_JUMP, unix.NFT_GOTO:
		name := netlink.String(a[unix.NFTA_VERDICT_CHAIN])
		if v.chain = t.Chains[name]; v.chain == nil {
			return nil, fmt.Errorf("the verdict leads to chain %s, which is not there", name)
		}
	default:
		return nil, fmt.Errorf("verdict %d is not known", v.code)
	}
	return v, nil
}

func (v *verdict) run(w *way) { w.code, w.chain = v.code, v.chain }

// compare is cmp.
type compare struct {
	from int
	op   uint32
	with []byte
}

func (x compare) run(w *way) {
	c := bytes.Compare(w.registers[x.from:x.from+len(x.with)], x.with)
	var ok bool
	switch x.op {
	case unix.NFT_CMP_EQ:
		ok = c == 0
	case unix.NFT_CMP_NEQ:
		ok = c != 0
	case unix.NFT_CMP_LT:
		ok = c < 0
	case unix.NFT_CMP_LTE:
		ok = c <= 0
	case unix.NFT_CMP_GT:
		ok = c > 0
	case unix.NFT_CMP_GTE:
		ok = c >= 0
	}
	w.match(ok)
}

// match ends the rule unless ok.
func (w *way) match(ok bool) {
	if !ok {
		w.code = unix.NFT_BREAK
	}
}

// between is range.
type between struct {
	from        int
	op          uint32
	first, last []byte
}

func (x between) run(w *way) {
	v := w.registers[x.from : x.from+len(x.first)]
	in := bytes.Compare(v, x.first) >= 0 && bytes.Compare(v, x.last) <= 0
	w.match(in == (x.op == unix.NFT_RANGE_EQ))
}

// bitwise masks a register and flips bits.
type bitwise struct {
	from, to  int
	mask, xor []byte
}

// bitwiseOp is NFTA_BITWISE_OP of linux/netfilter/nf_tables.h.
const bitwiseOp = 6

func (p *parser) bitwise() expression {
	if op := p.number(bitwiseOp); op != unix.NFT_BITWISE_BOOL {
		p.refuse("operation %d is not known", op)
	}
	return bitwise{p.register(unix.NFTA_BITWISE_SREG), p.register(unix.NFTA_BITWISE_DREG),
		p.value(unix.NFTA_BITWISE_MASK), p.value(unix.NFTA_BITWISE_XOR)}
}

func (x bitwise) run(w *way) {
	for i := range x.mask {
		w.registers[x.to+i] = w.registers[x.from+i]&x.mask[i] ^ x.xor[i]
	}
}

// random is numgen: any number below the modulus.
type random struct {
	to              int
	modulus, offset uint32
}

func (x random) run(w *way) { w.registers.store32(x.to, uint32(w.choose(int(x.modulus)))+x.offset) }
