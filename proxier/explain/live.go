package explain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/nftproxy/nftproxy/proxier/trace"
)

// Live is what happened to real packets to the frontend.
type Live struct {
	Packets []*trace.Packet `json:"packets"`
	Summary string          `json:"summary"`
	// Missed says that the kernel reported more than could be read: packets may be missing, or rules of them.
	Missed bool `json:"missed,omitempty"`
}

// StartTrace begins to trace packets to the frontend of the answer, in the network namespace of the calling
// thread: those of the client if the question names an address, those of this node for --from node, otherwise
// all. It ends by itself after the duration, and when the process ends.
func (r *Report) StartTrace(q Question, d time.Duration) (*trace.Trace, error) {
	to, ok := r.frontend()
	if !ok {
		return nil, errors.New("--live: there is no address whose packets could be traced")
	}
	from, err := parseFrom(q.From)
	if err != nil {
		return nil, err
	}
	return trace.Start(trace.Selection{To: to, From: from, Local: q.From == fromNode, For: d})
}

// FinishTrace watches packets for the duration, or until ctx ends, and adds what happened to them: after a
// probe, to those of the probe. The kernel has reported these already, so the duration can be 0 then.
func (r *Report) FinishTrace(ctx context.Context, t *trace.Trace, d time.Duration) error {
	var source netip.AddrPort
	if r.Probe != nil {
		source = r.Probe.Source
	}
	if err := t.Watch(ctx, d); err != nil {
		return err
	}
	packets, err := t.Packets(source)
	if err != nil {
		return err
	}
	r.Live = &Live{Packets: packets, Missed: t.Missed}
	r.Live.Summary = r.Live.summary(r.Frontend)
	return nil
}

// WriteLive writes a line for each packet, the rules that the first of a kind met, and a summary.
func (l *Live) WriteLive(w io.Writer) error {
	var b strings.Builder
	line := func(subject, text string) { fmt.Fprintf(&b, "%-8s  %s\n", subject, text) }
	known := map[string]bool{}
	for i, p := range l.Packets {
		if i == maxLines {
			line("packet", fmt.Sprintf("%d more: -o json lists all", len(l.Packets)-i))
			break
		}
		line("packet", fmt.Sprintf("%s: %s", fate(p), way(p)))
		if end := ending(p); !known[end] {
			known[end] = true
			for _, s := range p.Steps {
				line("  met", met(s))
			}
			line("  then", end)
		}
	}
	line("live", l.Summary)
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write trace: %w", err)
	}
	return nil
}

// fate says in a word what happened to a packet.
func fate(p *trace.Packet) string {
	switch {
	case p.Fate == trace.Dropped && strings.HasPrefix(ending(p), "refused"):
		return "refused"
	case p.Fate != trace.Left && p.Fate != trace.Delivered:
		return p.Fate
	case p.SentTo == p.Destination:
		return "untouched"
	}
	return "accepted"
}

// way says from where to where a packet went.
func way(p *trace.Packet) string {
	text := fmt.Sprintf("%s > %s", p.Source, p.Destination)
	if p.SentTo != p.Destination {
		text += fmt.Sprintf(", translated to %s", p.SentTo)
	}
	if p.SentFrom != p.Source {
		text += fmt.Sprintf(", masqueraded as %s", p.SentFrom)
	}
	return text
}

// met says what a rule did.
func met(s trace.Step) string {
	text := fmt.Sprintf("%s: %s", s.Chain, s.Rule)
	if s.Handle != 0 {
		text = fmt.Sprintf("%s handle %d: %s", s.Chain, s.Handle, s.Rule)
	}
	if s.Comment != "" {
		text += fmt.Sprintf(" comment %q", s.Comment)
	}
	if !strings.HasSuffix(s.Rule, s.Verdict) {
		text += ": " + s.Verdict
	}
	return text
}

// ending says how the way of a packet through this node ended.
func ending(p *trace.Packet) string {
	last := p.Last()
	switch p.Fate {
	case trace.Left:
		return "no rule drops it: it leaves this node by " + p.Out + "; the answer is not traced"
	case trace.Delivered:
		return "no rule drops it: a process of this node gets it; the answer is not traced"
	case trace.Dropped:
		if strings.Contains(strings.ToLower(last.Rule), "reject") { // of nft, or REJECT of iptables
			return "refused by " + culprit(last)
		}
		return "dropped by " + culprit(last)
	case trace.Handed:
		return "handed to another program by " + culprit(last)
	}
	text := "lost: no rule of nftables drops it, and it does not get through; see the route (ip route get " +
		p.SentTo.Addr().String() + "), rp_filter, and rules of iptables-legacy"
	if last.Table != "" {
		text += "; seen last in chain " + last.Chain.String()
	}
	return text
}

// culprit names the rule, or the policy of a chain, that decided, and how to list it.
func culprit(s trace.Step) string {
	list := fmt.Sprintf("; list it with nft -a list chain %s", s.Chain)
	if s.Handle == 0 {
		return fmt.Sprintf("the policy of chain %s%s", s.Chain, list)
	}
	text := fmt.Sprintf("rule %q", s.Rule)
	if s.Comment != "" {
		text += fmt.Sprintf(" with comment %q", s.Comment)
	}
	return fmt.Sprintf("%s, handle %d of chain %s%s", text, s.Handle, s.Chain, list)
}

// summary counts the packets by what happened to them.
func (l *Live) summary(frontend string) string {
	if len(l.Packets) == 0 {
		return "no packet to " + frontend + " was seen: nobody tried, or another node gets them"
	}
	count := map[string]int{}
	var order []string
	for _, p := range l.Packets {
		kind := fate(p)
		if p.Fate == trace.Dropped || p.Fate == trace.Handed {
			kind = ending(p)
		}
		if count[kind]++; count[kind] == 1 {
			order = append(order, kind)
		}
	}
	var parts []string
	for _, kind := range order {
		parts = append(parts, fmt.Sprintf("%d %s", count[kind], kind))
	}
	text := fmt.Sprintf("%d packets: %s", len(l.Packets), strings.Join(parts, "; "))
	if len(l.Packets) == 1 {
		text = "1 packet: " + strings.TrimPrefix(parts[0], "1 ")
	}
	if l.Missed {
		text += "; the kernel reported more than could be read"
	}
	return text
}
