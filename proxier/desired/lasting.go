package desired

import (
	"cmp"
	"slices"
	"time"

	"github.com/nftproxy/nftproxy/rules/service"
)

// Lasting is a problem that exists, and since when.
type Lasting struct {
	Problem
	Since time.Time
}

// Compare orders problems by Service and message.
func (l Lasting) Compare(m Lasting) int {
	return cmp.Or(l.Service.Compare(m.Service), cmp.Compare(l.Message, m.Message))
}

// Lasting returns the problems that exist, at most so many, in the order of their Services, and how many there
// are.
func (b *Builder) Lasting(most int) (list []Lasting, all int) {
	add := func(l Lasting) {
		all++
		if len(list) == most && (most == 0 || l.Compare(list[most-1]) >= 0) {
			return
		}
		at, _ := slices.BinarySearchFunc(list, l, Lasting.Compare)
		list = slices.Insert(list[:min(len(list), most-1)], at, l)
	}
	for name, parts := range b.known.invalid {
		for _, m := range parts.messages {
			add(Lasting{Problem{name, ReasonNotProgrammed, m}, parts.since})
		}
	}
	for _, c := range b.known.contests {
		for name, m := range c.losers {
			add(Lasting{Problem{name, ReasonConflict, m}, c.since})
		}
	}
	return list, all
}

// Messages returns the messages about what is left out of a Service, sorted.
func (b *Builder) Messages(name service.Name) []string {
	list := slices.Clone(b.known.invalid[name].messages)
	for f := range b.known.claims[name] {
		if m, loses := b.known.contests[f].losers[name]; loses {
			list = append(list, m)
		}
	}
	slices.Sort(list)
	return list
}
