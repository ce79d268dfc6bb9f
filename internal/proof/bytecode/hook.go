package bytecode

import (
	"cmp"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// manip is what a nat chain translates.
type manip int

const (
	destination manip = iota
	source
)

// natPlace returns what nat chains of a hook translate, and the priority at which the kernel runs all of them
// (net/netfilter/nf_nat_proto.c). Their own priorities order them among each other.
func natPlace(hook uint32) (manip, int32) {
	if hook == unix.NF_INET_PRE_ROUTING || hook == unix.NF_INET_LOCAL_OUT {
		return destination, -100
	}
	return source, 100
}

// order sorts the base chains of each hook. It refuses two at one place: the kernel calls that first which
// was added last, which a dump does not show.
func (r *Ruleset) order() error {
	for _, t := range r.Tables {
		if r.bases[t.Family] == nil {
			r.bases[t.Family] = &[unix.NF_INET_NUMHOOKS][]*Chain{}
		}
		for _, c := range t.Chains {
			if c.Hook != nil {
				at := &r.bases[t.Family][c.Hook.Number]
				*at = append(*at, c)
			}
		}
	}
	for _, hooks := range r.bases {
		for _, chains := range hooks {
			slices.SortFunc(chains, func(a, b *Chain) int { return before(a.Hook, b.Hook) })
			for i := range chains {
				if i > 0 && before(chains[i-1].Hook, chains[i].Hook) == 0 {
					return fmt.Errorf("%s and %s have one priority: which comes first is not known",
						chains[i-1], chains[i])
				}
			}
		}
	}
	return nil
}

// before compares the places of two chains of one hook.
func before(a, b *Hook) int {
	place := func(h *Hook) int32 {
		if h.Type == "nat" {
			_, place := natPlace(h.Number)
			return place
		}
		return h.Priority
	}
	return cmp.Or(cmp.Compare(place(a), place(b)), cmp.Compare(a.Type, b.Type),
		cmp.Compare(a.Priority, b.Priority))
}

// travel takes the packet through the hooks (the figure in Documentation/networking/netfilter and
// net/ipv4/ip_input.c, ip_output.c). What a host sends to itself passes output and postrouting, and then
// arrives at loopback: prerouting and input.
func (w *way) travel() {
	if w.packet.Interface == "" {
		w.hook(unix.NF_INET_LOCAL_OUT)
		w.hook(unix.NF_INET_POST_ROUTING)
		if w.local(w.dst) {
			w.looped = true
			w.hook(unix.NF_INET_PRE_ROUTING)
			w.hook(unix.NF_INET_LOCAL_IN)
		}
		return
	}
	w.hook(unix.NF_INET_PRE_ROUTING)
	if w.local(w.dst) || w.packet.Socket && !w.translated {
		w.hook(unix.NF_INET_LOCAL_IN)
		return
	}
	w.hook(unix.NF_INET_FORWARD)
	w.hook(unix.NF_INET_POST_ROUTING)
}

// hook calls the base chains of a hook, until one drops the packet. The kernel calls no nat chain once it
// knows how to translate (nf_nat_inet_fn in net/netfilter/nf_nat_core.c): after the first that translates,
// and at the end of the hook in any case.
func (w *way) hook(number uint32) {
	if w.ended() {
		return
	}
	w.at = number
	manip, _ := natPlace(number)
	for _, c := range w.bases[number] {
		if c.Hook.Type == "nat" && w.decided[manip] {
			continue
		}
		if w.evaluate(c); w.ended() {
			return
		}
	}
	if number != unix.NF_INET_FORWARD {
		w.decided[manip] = true
	}
}
