package interpreter

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// after is what follows a statement.
type after int

const (
	proceed after = iota // with the next statement of the rule
	leave                // with the chain that the statement has chosen, if it did not end the way
	noMatch              // with the next rule
)

// execute evaluates one statement. Statements that look up something are in lookup.go.
func (m *machine) execute(s *state, statement nftables.Statement) (after, error) {
	switch x := statement.(type) {
	case nftables.InSet, nftables.Dispatch, nftables.DNAT, nftables.SetPriority, nftables.Recall,
		nftables.Remember, nftables.Forget:
		return m.lookUp(s, statement)
	case nftables.Jump:
		return m.call(s, x.Chain, true)
	case nftables.Goto:
		return m.call(s, x.Chain, false)
	case nftables.TakeTurn:
		s.priority = nftables.Class(1 + s.random)
		return s.when(true, "turn "+s.priority.String()), nil
	case nftables.Drop:
		return s.finish(Dropped, "dropped"), nil
	case nftables.Reject:
		return s.finish(Refused, "refused with an ICMP error"), nil
	case nftables.Reset:
		return s.finish(Refused, "refused with a TCP reset"), nil
	case nftables.Accept:
		s.frames = nil
		return s.note("accepted, this base chain ends"), nil
	case nftables.Masquerade:
		s.frames, s.source, s.masqueraded = nil, true, true
		return s.note("masqueraded"), nil
	case nftables.SetMark:
		s.mark |= x.Mask
		s.note(fmt.Sprintf("marked %#x", x.Mask))
	case nftables.ClearMark:
		s.mark ^= x.Mask
	case nftables.ClearPriority:
		s.priority = 0
	default:
		return m.match(s, statement)
	}
	return proceed, nil
}

// match evaluates the statements that compare a property of the packet.
func (m *machine) match(s *state, statement nftables.Statement) (after, error) {
	switch x := statement.(type) {
	case nftables.HasMark:
		return s.when(s.mark&x.Mask != 0, fmt.Sprintf("the mark is %#x", s.mark)), nil
	case nftables.Translated:
		return s.when(s.changed, words(s.changed, "translated", "not translated")), nil
	case nftables.HasSocket:
		return s.when(s.packet.Socket,
			words(s.packet.Socket, "another proxy has it", "no other proxy has it")), nil
	case nftables.IsProtocol:
		return s.when(s.packet.Protocol == x.Protocol, "the protocol is "+s.packet.Protocol.String()), nil
	case nftables.AddrLocal:
		addr := s.packet.Src
		if x.Addr == nftables.DstAddr {
			addr = s.packet.Dst
		}
		local := m.local(addr)
		return s.when(local != x.Not,
			addr.String()+words(local, " is an address of the node", " is no address of the node")), nil
	case nftables.Interface:
		same := isInterface(x.Name, s.packet.Interface)
		return s.when(same != x.Not, "it arrived on "+
			words(s.packet.Interface == "", "no interface", s.packet.Interface)), nil
	}
	return leave, fmt.Errorf("unknown statement %T", statement)
}

// isInterface reports whether the name of an interface is the one of a rule, which may end with *.
func isInterface(rule, name string) bool {
	if prefix, ok := strings.CutSuffix(rule, "*"); ok {
		return strings.HasPrefix(name, prefix)
	}
	return rule == name
}

// call continues in a chain. With back, the rules after the statement follow it.
func (m *machine) call(s *state, name string, back bool) (after, error) {
	chain, found, err := m.tables.Chain(m.family, name)
	if err != nil {
		return leave, err
	}
	if !found {
		return leave, fmt.Errorf("table %s has no chain %s", m.family, name)
	}
	if !back {
		s.frames = s.frames[:len(s.frames)-1]
	}
	s.frames = append(s.frames, frame{chain: chain})
	return s.note("to chain " + name), nil
}

// translate sends the connection to an endpoint. The kernel notes a translation only if it changes something
// (net/netfilter/nf_nat_core.c, nf_nat_setup_info).
func (s *state) translate(to service.Backend) after {
	s.changed = to != netip.AddrPortFrom(s.packet.Dst, s.packet.Port)
	s.packet.Dst, s.packet.Port = to.Addr(), to.Port()
	s.destination, s.frames = true, nil
	return s.note("to " + to.String())
}

// finish ends the way of the packet.
func (s *state) finish(v Verdict, what string) after {
	s.verdict, s.ended = v, true
	return s.note(what)
}

// note records what a statement did that ends its rule.
func (s *state) note(what string) after {
	s.log = append(s.log, what)
	return leave
}

// when records whether the packet matches, and why.
func (s *state) when(matches bool, why string) after {
	if !matches {
		s.note("no match: " + why)
		return noMatch
	}
	s.log = append(s.log, why)
	return proceed
}

func words(condition bool, yes, no string) string {
	if condition {
		return yes
	}
	return no
}
