package trace

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/google/nftables/expr"
)

// Fates of a packet.
const (
	// Left: it got through all rules, and leaves the node by the interface Out.
	Left = "left"
	// Delivered: it got through all rules, to a process of this node.
	Delivered = "delivered"
	// Dropped: the last step is the rule that drops or rejects it, or the chain with the policy drop.
	Dropped = "dropped"
	// Handed: a rule gave it to another program (queue), or took it over (synproxy and others).
	Handed = "handed over"
	// Lost: no rule of nftables dropped it, and it did not get through.
	Lost = "lost"
)

// Packet is what happened to a packet.
type Packet struct {
	Source      netip.AddrPort `json:"source"`
	Destination netip.AddrPort `json:"destination"`
	// SentFrom and SentTo are what they were when the packet was seen last, after the translation: whom the
	// endpoint sees, and the endpoint.
	SentFrom netip.AddrPort `json:"sentFrom"`
	SentTo   netip.AddrPort `json:"sentTo"`
	In       string         `json:"in,omitempty"`  // interface; empty: it is from this node
	Out      string         `json:"out,omitempty"` // interface when it was seen last
	Fate     string         `json:"fate"`
	Steps    []Step         `json:"steps"` // the rules that it met, in this order
}

// Step is a rule that matched the packet, or a base chain whose policy decided.
type Step struct {
	Chain
	Handle  uint64 `json:"handle,omitempty"` // 0: the policy of the chain
	Rule    string `json:"rule"`             // in the words of nft as far as they are known
	Comment string `json:"comment,omitempty"`
	Verdict string `json:"verdict"` // accept, drop, jump CHAIN and so on
}

// Last returns the step that decided, or an empty one.
func (p *Packet) Last() Step {
	if len(p.Steps) == 0 {
		return Step{}
	}
	return p.Steps[len(p.Steps)-1]
}

// add records an event that is about the packet.
func (p *Packet) add(e event, device func(uint32) string) {
	if e.header {
		p.SentFrom, p.SentTo = e.src, e.dst
	}
	if e.out != 0 {
		p.Out = device(e.out)
	}
	if e.chain.Table == TableName {
		switch {
		case e.kind != unix.NFT_TRACETYPE_POLICY:
		case e.chain.Name == chainPostrouting:
			p.Fate = Left
		case e.chain.Name == chainInput:
			p.Fate = Delivered
		}
		return
	}
	// The end of a chain is reported as well: as a return, or since Linux 6.x as a rule without a handle.
	if e.kind != unix.NFT_TRACETYPE_POLICY && e.handle == 0 {
		return
	}
	step := Step{Chain: e.chain, Handle: e.handle, Verdict: verdictText(e)}
	if e.kind == unix.NFT_TRACETYPE_POLICY {
		step.Rule = "policy " + step.Verdict
	}
	p.Steps = append(p.Steps, step)
	switch {
	case step.Verdict == "drop":
		p.Fate = Dropped
	case step.Verdict == "queue", step.Verdict == "stolen":
		p.Fate = Handed
	case p.Fate == Left && p.Out == loopback:
		p.Fate = Lost // it comes back through prerouting, until it is seen behind the rules again
	}
}

// loopback is the interface by which a packet leaves to this node itself.
const loopback = "lo"

// verdictText returns a verdict in the words of nft.
func verdictText(e event) string {
	// The lower 16 bits are the verdict, the others its argument: the error of a drop, the number of a queue.
	switch v := expr.VerdictKind(e.verdict); {
	case v == expr.VerdictContinue, v == expr.VerdictBreak:
		return "continue"
	case v == expr.VerdictReturn:
		return "return"
	case v == expr.VerdictJump:
		return "jump " + e.target
	case v == expr.VerdictGoto:
		return "goto " + e.target
	case v&0xffff == expr.VerdictDrop:
		return "drop"
	case v&0xffff == expr.VerdictAccept:
		return "accept"
	case v&0xffff == expr.VerdictStolen:
		return "stolen"
	case v&0xffff == expr.VerdictQueue:
		return "queue"
	default:
		return fmt.Sprint("verdict ", int64(v))
	}
}
