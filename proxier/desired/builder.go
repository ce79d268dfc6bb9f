package desired

import (
	"maps"
	"slices"

	"github.com/nftproxy/nftproxy/proxier/state"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Builder keeps the ruleset of a node in line with the state of the cluster. It is not safe for concurrent
// use.
type Builder struct {
	state       *state.State
	known       known
	environment Environment
	ruleset     *rules.Ruleset
}

// NewBuilder returns a Builder without a ruleset. It calls report for each part of a Service that is not
// programmed: once while that is so, however often the Service is built, and again when it has come back.
func NewBuilder(s *state.State, report func(Problem)) *Builder {
	return &Builder{state: s, known: newKnown(report)}
}

// Problems returns how many Services have problems.
func (b *Builder) Problems() int { return b.known.services() }

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
	names := b.state.Services()
	b.known.keep(names)
	b.build(names, slots, slices.Collect(maps.Keys(b.known.contests)))
	return b.ruleset
}

// Update builds Services of the ruleset again. Their endpoints keep their slots.
func (b *Builder) Update(names ...service.Name) {
	b.build(names, b.ruleset.Slots, b.known.contested(names))
}

// build builds Services and reports what changed about their conflicts in the end: a Service may claim a
// frontend that a later one of them gives up, and a Service that gives one up may end the conflict of
// another.
func (b *Builder) build(names []service.Name, slots rules.Slots, contested []service.Frontend) {
	for _, name := range names {
		for _, c := range b.put(name, slots) {
			contested = append(contested, c.Frontend)
		}
	}
	slices.SortFunc(contested, service.Frontend.Compare)
	for _, f := range slices.Compact(contested) {
		b.known.conflicts(f, b.ruleset.Losers(f))
	}
}

// put builds one Service and returns its conflicts with others.
func (b *Builder) put(name service.Name, slots rules.Slots) []rules.Conflict {
	svc, problems := b.state.Service(name)
	if svc == nil {
		b.known.parts(name, problems)
		b.ruleset.Remove(name)
		return nil
	}
	problems = append(problems, b.environment.restrict(svc)...)
	compiled := rules.Compile(svc, b.environment.Node, slots)
	b.known.parts(name, append(problems, compiled.Problems...))
	return b.ruleset.Put(compiled)
}
