package proxier

import (
	"fmt"

	"github.com/nftproxy/nftproxy/proxier/state"
	"github.com/nftproxy/nftproxy/rules"
)

// builder builds the desired ruleset, Service by Service.
type builder struct {
	state   *state.State
	ground  ground
	ruleset *rules.Ruleset
	report  func(Problem)
}

// build brings what is desired for one Service up to date. Backends stay in the
// slots given, by default those that they have in the ruleset.
func (b *builder) build(name rules.ServiceName, slots rules.Slots) {
	svc, problems := b.state.Service(name)
	for _, p := range problems {
		b.report(Problem{name, reasonProblem, p})
	}
	if svc == nil {
		b.ruleset.Remove(name)
		return
	}
	if slots == nil {
		slots = b.ruleset.Slots
	}
	compiled := rules.Compile(svc, b.ground.node, slots)
	for _, p := range compiled.Problems {
		b.report(Problem{name, reasonProblem, p})
	}
	for _, c := range b.ruleset.Put(compiled) {
		b.report(Problem{c.Loser, reasonConflict, fmt.Sprintf("%s is taken by Service %s, which is older", c.Frontend, c.Winner)})
	}
}
