package desired

import (
	"maps"
	"slices"
	"time"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// known are the problems that exist and were reported. It holds no others, so what exists bounds its memory.
type known struct {
	report   func(Problem)
	invalid  map[service.Name]invalid
	contests map[service.Frontend]contest
	// claims are the contests that a Service takes part in.
	claims map[service.Name]map[service.Frontend]struct{}
}

// invalid are the messages about parts of a Service that are left out.
type invalid struct {
	messages []string
	since    time.Time // of the first of them
}

// contest is about a frontend that several Services claim.
type contest struct {
	since  time.Time
	winner service.Name
	losers map[service.Name]string // messages
}

func newKnown(report func(Problem)) known {
	return known{report: report, invalid: map[service.Name]invalid{},
		contests: map[service.Frontend]contest{}, claims: map[service.Name]map[service.Frontend]struct{}{}}
}

// services returns how many Services have problems.
func (k *known) services() int {
	names := map[service.Name]struct{}{}
	for name := range k.invalid {
		names[name] = struct{}{}
	}
	for _, c := range k.contests {
		for name := range c.losers {
			names[name] = struct{}{}
		}
	}
	return len(names)
}

// keep forgets the invalid parts of all Services but these.
func (k *known) keep(sorted []service.Name) {
	maps.DeleteFunc(k.invalid, func(name service.Name, _ invalid) bool {
		_, found := slices.BinarySearchFunc(sorted, name, service.Name.Compare)
		return !found
	})
}

// has reports whether a Service has invalid parts.
func (k *known) has(name service.Name) bool { return len(k.invalid[name].messages) > 0 }

// parts sets the messages about parts of a Service that are not programmed.
func (k *known) parts(name service.Name, messages []string) {
	before := k.invalid[name]
	for i, m := range messages {
		if !slices.Contains(before.messages, m) && !slices.Contains(messages[:i], m) {
			k.report(Problem{name, ReasonNotProgrammed, m})
		}
	}
	if len(messages) == 0 {
		delete(k.invalid, name)
		return
	}
	if before.since.IsZero() {
		before.since = time.Now()
	}
	k.invalid[name] = invalid{messages, before.since}
}

// contested returns the frontends of the contests that Services take part in, some of them twice.
func (k *known) contested(names []service.Name) (frontends []service.Frontend) {
	for _, name := range names {
		frontends = slices.AppendSeq(frontends, maps.Keys(k.claims[name]))
	}
	return frontends
}

// conflicts sets the conflicts about a frontend.
func (k *known) conflicts(f service.Frontend, now []rules.Conflict) {
	before := k.contests[f]
	k.leave(before.winner, f)
	for name := range before.losers {
		k.leave(name, f)
	}
	delete(k.contests, f)
	if len(now) == 0 {
		return
	}
	c := contest{before.since, now[0].Winner, make(map[service.Name]string, len(now))}
	if c.since.IsZero() {
		c.since = time.Now()
	}
	k.join(c.winner, f)
	for _, conflict := range now {
		p := Conflict(conflict)
		if before.losers[p.Service] != p.Message {
			k.report(p)
		}
		c.losers[p.Service] = p.Message
		k.join(p.Service, f)
	}
	k.contests[f] = c
}

func (k *known) join(name service.Name, f service.Frontend) {
	if k.claims[name] == nil {
		k.claims[name] = map[service.Frontend]struct{}{}
	}
	k.claims[name][f] = struct{}{}
}

func (k *known) leave(name service.Name, f service.Frontend) {
	if delete(k.claims[name], f); len(k.claims[name]) == 0 {
		delete(k.claims, name)
	}
}
