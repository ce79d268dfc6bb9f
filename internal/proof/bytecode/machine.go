package bytecode

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Machine runs packets through a ruleset. It belongs to one goroutine.
type Machine struct {
	Ruleset *Ruleset
	// Later is the ruleset that a transaction replaces Ruleset with while the packet is on its way, at any
	// moment; nil: none does. The kernel reads the generation of rules once for each base chain, and that of
	// elements at every lookup (nft_do_chain, nft_genmask_cur).
	Later *Ruleset
	Local func(netip.Addr) bool // whether an address is one of the host
	// Empty says that dynamic sets are empty, except for the memory of Run. Otherwise they may have anything,
	// or be full.
	Empty bool

	way way
}

// Memory is what dynamic sets have.
type Memory []entry

type entry struct {
	set    *Set
	key    string
	data   string
	absent bool
}

var errEndless = errors.New("the rules do not come to an end")

// Run calls each with the outcomes that a connection can have, once for each way to them, and with what the
// dynamic sets are known to have afterwards. The memory is valid during the call only.
func (m *Machine) Run(p Packet, memory Memory, each func(Outcome, Memory)) error {
	w := &m.way
	for w.trail = w.trail[:0]; ; {
		w.start(m, p, memory)
		w.travel()
		if w.err != nil {
			return w.err
		}
		each(w.outcome(), w.memory)
		if !w.nextTrail() {
			return nil
		}
	}
}

// Outcomes returns the outcomes of Run, each once.
func (m *Machine) Outcomes(p Packet, memory Memory, out []Outcome) ([]Outcome, error) {
	err := m.Run(p, memory, func(o Outcome, _ Memory) {
		if !slices.Contains(out, o) {
			out = append(out, o)
		}
	})
	return out, err
}

// way is a packet with one sequence of choices.
type way struct {
	*Machine
	packet Packet
	bases  *[unix.NF_INET_NUMHOOKS][]*Chain
	later  bool // the transaction is over: elements are those of Machine.Later
	rules  *Ruleset

	header         header
	dst            netip.Addr // now
	port           uint16
	mark, priority uint32
	status         uint32 // of the connection
	at             uint32 // hook
	looped         bool
	decided        [2]bool // by manip
	translated     bool
	masqueraded    bool
	dropped        bool
	rejected       bool
	reset          bool
	remembered     time.Duration

	registers registers
	anyPort   bool   // the registers have the source port, which may be any
	code      int32  // NFT_CONTINUE, NFT_BREAK and so on, or NF_ACCEPT, NF_DROP
	chain     *Chain // of NFT_JUMP and NFT_GOTO
	steps     int
	err       error

	memory Memory
	trail  []choice
	turn   int
}

// choice is one of several ways to go on.
type choice struct{ taken, of int }

func (w *way) start(m *Machine, p Packet, memory Memory) {
	known, trail := append(w.memory[:0], memory...), w.trail
	*w = way{Machine: m, packet: p, header: newHeader(&p), dst: p.Dst, port: p.Port,
		mark: p.Mark, priority: p.Priority, memory: known, trail: trail}
	if w.bases = m.Ruleset.bases[p.family()]; w.bases == nil {
		w.bases = &[unix.NF_INET_NUMHOOKS][]*Chain{}
	}
}

// choose returns a number below n, another one each time that the packet comes here.
func (w *way) choose(n int) int {
	if w.turn == len(w.trail) {
		w.trail = append(w.trail, choice{0, n})
	}
	w.turn++
	return w.trail[w.turn-1].taken
}

// nextTrail prepares the next sequence of choices, and returns false after the last one.
func (w *way) nextTrail() bool {
	for n := len(w.trail); n > 0; n = len(w.trail) {
		if w.trail[n-1].taken++; w.trail[n-1].taken < w.trail[n-1].of {
			return true
		}
		w.trail = w.trail[:n-1]
	}
	return false
}

func (w *way) ended() bool { return w.dropped || w.err != nil }

func (w *way) local(a netip.Addr) bool { return w.Machine.Local(a) }

// Verdicts of linux/netfilter.h.
const (
	verdictDrop   = 0 // NF_DROP
	verdictAccept = 1 // NF_ACCEPT
)

// position is a chain and its next rule.
type position struct {
	chain *Chain
	next  int
}

// maxSteps bounds the rules of one way through chains that lead to each other in a circle, which the kernel
// refuses to load.
const maxSteps = 10_000

// evaluate runs a base chain, as nft_do_chain of net/netfilter/nf_tables_core.c does.
func (w *way) evaluate(base *Chain) {
	var buf [16]position // NFT_JUMP_STACK_SIZE
	stack := append(buf[:0], position{w.generation(base), 0})
	w.code = unix.NFT_CONTINUE
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		if top.next == len(top.chain.Rules) {
			stack = stack[:len(stack)-1]
			continue
		}
		top.next++
		if w.steps++; w.steps > maxSteps {
			w.err = fmt.Errorf("%s: %w", base, errEndless)
		}
		switch w.rule(top.chain, top.next-1); w.code {
		case unix.NFT_CONTINUE, unix.NFT_BREAK:
		case unix.NFT_JUMP:
			stack = append(stack, position{w.current(w.chain), 0})
		case unix.NFT_GOTO:
			*top = position{w.current(w.chain), 0}
		case unix.NFT_RETURN:
			stack = stack[:len(stack)-1]
		case verdictAccept:
			return
		default:
			w.dropped = true
			return
		}
		if w.err != nil {
			return
		}
	}
	w.dropped = base.Hook.Drop
}

func (w *way) rule(c *Chain, i int) {
	w.code = unix.NFT_CONTINUE
	for _, x := range c.Rules[i] {
		x.run(w)
		if w.err != nil {
			w.err = fmt.Errorf("%s, rule %d: %w", c, i+1, w.err)
			return
		}
		if w.code != unix.NFT_CONTINUE {
			return
		}
	}
}

// over reports whether the transaction is over: once it is, it stays so.
func (w *way) over() bool {
	if w.Later != nil && !w.later {
		w.later = w.choose(2) == 1
	}
	return w.later
}

// generation chooses the generation of the rules for a base chain, and returns the chain.
func (w *way) generation(base *Chain) *Chain {
	if w.rules = w.Ruleset; w.over() {
		w.rules = w.Later
	}
	return w.current(base)
}

// current returns a chain with the rules that it has in the generation. Where it does not exist it has none.
func (w *way) current(c *Chain) *Chain {
	if w.Later == nil {
		return c
	}
	if t := w.rules.table(c.Table); t != nil && t.Chains[c.Name] != nil {
		return t.Chains[c.Name]
	}
	return &Chain{Table: c.Table, Name: c.Name, Hook: c.Hook}
}

// set returns a set with the elements that it has at this moment.
func (w *way) set(s *Set) *Set {
	if s.flags&unix.NFT_SET_ANONYMOUS == 0 && w.over() {
		if t := w.Later.table(s.table); t != nil && t.Sets[s.Name] != nil {
			return t.Sets[s.Name]
		}
	}
	return s
}

// table returns the table with the same name.
func (r *Ruleset) table(like *Table) *Table {
	for _, t := range r.Tables {
		if t.Family == like.Family && t.Name == like.Name {
			return t
		}
	}
	return nil
}

func (w *way) outcome() Outcome {
	o := Outcome{Masqueraded: w.masqueraded, Mark: w.mark, Priority: w.priority}
	switch {
	case w.dropped:
		o = Outcome{Verdict: Dropped}
		if w.rejected {
			o.Verdict, o.Reset = Refused, w.reset
		}
	case w.translated:
		o.Verdict, o.Endpoint = Translated, netip.AddrPortFrom(w.dst, w.port)
	}
	if o.Verdict == Translated {
		o.Remembered = w.remembered
	}
	return o
}
