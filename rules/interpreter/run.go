package interpreter

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Names of the hooks.
const (
	prerouting  = "prerouting"
	output      = "output"
	input       = "input"
	postrouting = "postrouting"
)

// Run returns the outcomes that a connection can have, each once, in a fixed order. local reports whether an
// address is one of the host. The error is that of Tables, or names a statement that Run does not know.
func Run(t Tables, local func(netip.Addr) bool, p Packet) ([]Outcome, error) {
	m := &machine{tables: t, local: local, family: service.FamilyOf(p.Dst),
		bases: map[string][]nftables.Chain{}}
	first := &state{packet: p, hook: prerouting}
	if p.Interface == "" {
		first.hook = output
	}
	if err := m.enter(first); err != nil {
		return nil, err
	}
	m.todo = []*state{first}
	for len(m.todo) > 0 {
		s := m.todo[len(m.todo)-1]
		m.todo = m.todo[:len(m.todo)-1]
		for !s.ended {
			if err := m.step(s); err != nil {
				return nil, err
			}
		}
		m.outcomes = append(m.outcomes, s.outcome())
	}
	return distinct(m.outcomes), nil
}

// machine evaluates all ways of one packet.
type machine struct {
	tables   Tables
	local    func(netip.Addr) bool
	family   service.Family
	bases    map[string][]nftables.Chain // of each hook, in the order of their priority
	todo     []*state                    // ways that are not evaluated to their end
	outcomes []Outcome
}

// state is a packet on one of its ways.
type state struct {
	packet   Packet
	priority nftables.Class
	mark     uint32
	random   int // the number that the statement at hand chose

	taken  int // steps
	hook   string
	bases  []nftables.Chain // of the hook that are still to be called
	frames []frame          // the last one is evaluated
	ended  bool

	destination, source bool // was decided: no further nat chain is called for it
	changed             bool // the destination is another one than at the beginning
	masqueraded         bool
	verdict             Verdict
	remembered          *Client
	forgotten           bool
	steps               *Step
	log                 []string // what the statements of the rule at hand did
}

// frame is a chain with the rule that comes next.
type frame struct {
	chain nftables.Chain
	next  int
}

// maxSteps bounds one way through tables in which chains lead to each other in a circle, which the kernel
// refuses to load.
const maxSteps = 10_000

var errEndless = errors.New("the rules do not come to an end")

// enter begins the base chains of the hook that the state names.
func (m *machine) enter(s *state) error {
	bases, read := m.bases[s.hook]
	if !read {
		chains, err := m.tables.BaseChains(m.family)
		if err != nil {
			return err
		}
		for _, c := range chains {
			if c.Hook != nil && c.Hook.Name == s.hook {
				bases = append(bases, c)
			}
		}
		slices.SortStableFunc(bases, func(a, b nftables.Chain) int {
			return cmp.Compare(a.Hook.Priority, b.Hook.Priority)
		})
		m.bases[s.hook] = bases
	}
	s.bases = bases
	return nil
}

// step evaluates the next rule, or goes to the next chain or hook.
func (m *machine) step(s *state) error {
	if s.taken++; s.taken > maxSteps {
		return errEndless
	}
	if n := len(s.frames); n > 0 {
		top := &s.frames[n-1]
		if top.next == len(top.chain.Rules) {
			s.frames = s.frames[:n-1]
			return nil
		}
		top.next++
		return m.rule(s, top.chain, top.next-1)
	}
	decided := s.destination
	if s.hook == postrouting || s.hook == input {
		decided = s.source
	}
	if len(s.bases) == 0 || decided { // the kernel calls no nat chain after the first translation
		return m.route(s)
	}
	s.frames, s.bases = append(s.frames, frame{chain: s.bases[0]}), s.bases[1:]
	return nil
}

// route takes the packet to its next hook. What stays on the host after prerouting passes input, and what the
// host itself sends passes postrouting, also to itself.
func (m *machine) route(s *state) error {
	switch {
	case s.hook == prerouting && m.local(s.packet.Dst):
		s.hook = input
	case s.hook == prerouting, s.hook == output:
		s.hook = postrouting
	default:
		s.ended = true
		return nil
	}
	return m.enter(s)
}

// rule evaluates the rule i of a chain.
func (m *machine) rule(s *state, c nftables.Chain, i int) error {
	s.log = nil
	if err := m.statements(s, c, i, 0); err != nil {
		return fmt.Errorf("chain %s of table %s, rule %q: %w",
			c.Name, m.family, c.Rules[i].Text(m.family), err)
	}
	return nil
}

// statements evaluates the statements of a rule from one on, until one does not match or ends the chain.
func (m *machine) statements(s *state, c nftables.Chain, i, from int) error {
	for at := from; at < len(c.Rules[i]); at++ {
		if n := choiceOf(c.Rules[i][at]); n > 1 {
			return m.draw(s, c, i, at, n)
		}
		next, err := m.execute(s, c.Rules[i][at])
		if err != nil {
			return err
		}
		if next != proceed {
			break
		}
	}
	s.record(c, i)
	return nil
}

// draw goes on with a statement that chooses a number, once with each of n numbers. Where the statement
// does not match nothing has changed, so one of these ways stands for all.
func (m *machine) draw(s *state, c nftables.Chain, i, at, n int) error {
	before := s.clone()
	missed := false
	for number := range n {
		way := s
		if number > 0 {
			way = before.clone()
		}
		way.random = number
		next, err := m.execute(way, c.Rules[i][at])
		way.random = 0
		switch {
		case err != nil:
			return err
		case next == noMatch && missed && number > 0:
			continue
		case next == proceed:
			if err := m.statements(way, c, i, at+1); err != nil {
				return err
			}
		default:
			way.record(c, i)
		}
		missed = missed || next == noMatch
		if number > 0 {
			m.todo = append(m.todo, way)
		}
	}
	return nil
}

// record adds a rule that was evaluated to the steps.
func (s *state) record(c nftables.Chain, i int) {
	s.steps = &Step{Before: s.steps, Family: c.Family, Hook: s.hook, Chain: c.Name,
		Rule: c.Rules[i], Result: strings.Join(s.log, ", ")}
}

// clone returns a state that goes its own way.
func (s *state) clone() *state {
	c := *s
	c.frames, c.log = slices.Clone(s.frames), slices.Clone(s.log)
	return &c
}

func (s *state) outcome() Outcome {
	o := Outcome{Verdict: s.verdict, Masqueraded: s.masqueraded, Remembered: s.remembered, Steps: s.steps}
	if s.destination && s.verdict == Untouched {
		o.Verdict = Translated
	}
	if o.Verdict == Translated {
		o.Endpoint = netip.AddrPortFrom(s.packet.Dst, s.packet.Port)
	}
	return o
}

// distinct returns the outcomes sorted, and one of those that differ in their steps only.
func distinct(all []Outcome) []Outcome {
	compare := func(a, b Outcome) int {
		return cmp.Or(cmp.Compare(a.Verdict, b.Verdict), a.Endpoint.Compare(b.Endpoint),
			boolean(a.Masqueraded)-boolean(b.Masqueraded))
	}
	slices.SortStableFunc(all, compare)
	return slices.CompactFunc(all, func(a, b Outcome) bool { return compare(a, b) == 0 })
}

func boolean(b bool) int {
	if b {
		return 1
	}
	return 0
}
