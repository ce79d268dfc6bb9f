package desired

import (
	"fmt"

	"github.com/nftproxy/nftproxy/proxier/state"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Builder keeps the ruleset of a node in line with the state of the cluster. It is not safe for concurrent
// use.
type Builder struct {
	state       *state.State
	report      func(Problem)
	environment Environment
	ruleset     *rules.Ruleset
}

// NewBuilder returns a Builder without a ruleset. It calls report for each part of a Service that is not
// programmed.
func NewBuilder(s *state.State, report func(Problem)) *Builder {
	return &Builder{state: s, report: report}
}

// Ruleset returns the ruleset, or nil before the first Rebuild.
func (b *Builder) Ruleset() *rules.Ruleset { return b.ruleset }

// Environment returns the Environment of the ruleset.
func (b *Builder) Environment() Environment { return b.environment }

// Rebuild builds the whole ruleset for an Environment. Endpoints keep their slots in slots, which may be nil.
func (b *Builder) Rebuild(e Environment, slots rules.Slots) *rules.Ruleset {
	b.environment, b.ruleset = e, rules.NewRuleset(e.Config)
	if slots == nil {
		slots = b.ruleset.Slots
	}
	for _, name := range b.state.Services() {
		b.build(name, slots)
	}
	return b.ruleset
}

// Update builds one Service of the ruleset again. Its endpoints keep their slots.
func (b *Builder) Update(name service.Name) { b.build(name, b.ruleset.Slots) }

func (b *Builder) build(name service.Name, slots rules.Slots) {
	svc, problems := b.state.Service(name)
	for _, p := range problems {
		b.report(Problem{name, ReasonNotProgrammed, p})
	}
	if svc == nil {
		b.ruleset.Remove(name)
		return
	}
	for _, p := range b.environment.restrict(svc) {
		b.report(Problem{name, ReasonNotProgrammed, p})
	}
	compiled := rules.Compile(svc, b.environment.Node, slots)
	for _, p := range compiled.Problems {
		b.report(Problem{name, ReasonNotProgrammed, p})
	}
	for _, c := range b.ruleset.Put(compiled) {
		why := "is older"
		if c.ClusterIP {
			why = "has the address as its ClusterIP"
		}
		b.report(Problem{c.Loser, ReasonConflict,
			fmt.Sprintf("%s is taken by Service %s, which %s", c.Frontend, c.Winner, why)})
	}
}
