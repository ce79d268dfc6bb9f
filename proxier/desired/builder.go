package desired

import (
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
	b.build(b.state.Services(), slots)
	return b.ruleset
}

// Update builds Services of the ruleset again. Their endpoints keep their slots.
func (b *Builder) Update(names ...service.Name) { b.build(names, b.ruleset.Slots) }

// build builds Services and reports the conflicts that remain: a Service may claim a frontend that a later
// one of them gives up.
func (b *Builder) build(names []service.Name, slots rules.Slots) {
	var conflicts []rules.Conflict
	for _, name := range names {
		conflicts = append(conflicts, b.put(name, slots)...)
	}
	for _, c := range conflicts {
		if now, ok := b.ruleset.Conflict(c.Frontend, c.Loser); ok {
			b.report(Conflict(now))
		}
	}
}

// put builds one Service and returns its conflicts with others.
func (b *Builder) put(name service.Name, slots rules.Slots) []rules.Conflict {
	svc, problems := b.service(name)
	var compiled *rules.Compiled
	if svc != nil {
		compiled = rules.Compile(svc, b.environment.Node, slots)
		problems = append(problems, compiled.Problems...)
	}
	for _, p := range problems {
		b.report(Problem{name, ReasonNotProgrammed, p})
	}
	if svc == nil {
		b.ruleset.Remove(name)
		return nil
	}
	return b.ruleset.Put(compiled)
}

// service returns a Service with the addresses that it may have here, and the problems of what is left out.
func (b *Builder) service(name service.Name) (*service.Service, []string) {
	svc, problems := b.state.Service(name)
	if svc != nil {
		problems = append(problems, b.environment.restrict(svc)...)
	}
	return svc, problems
}
