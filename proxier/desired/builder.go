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
	report      func(Problem)
	environment Environment
	ruleset     *rules.Ruleset
	shares      map[string]int // by namespace: those with which its Services were compiled, if not MaxShare
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
	b.environment, b.ruleset, b.shares = e, rules.NewRuleset(e.Config), map[string]int{}
	if slots == nil {
		slots = b.ruleset.Slots
	}
	b.build(b.state.Services(), slots)
	return b.ruleset
}

// Update builds Services of the ruleset again. Their endpoints keep their slots.
func (b *Builder) Update(names ...service.Name) { b.build(names, b.ruleset.Slots) }

// build builds Services and reports the conflicts that remain: a Service may claim a frontend that a later
// one of them gives up. If the share of a namespace changes, it builds all Services of the namespace again.
func (b *Builder) build(names []service.Name, slots rules.Slots) {
	p := pass{Builder: b, slots: slots}
	p.put(names)
	p.recordShares(names)
	if again := p.changed; len(again) > 0 {
		other := func(n service.Name) bool { return !again[n.Namespace] }
		p.put(slices.DeleteFunc(b.state.Services(), other))
	}
	for _, name := range slices.SortedFunc(maps.Keys(p.problems), service.Name.Compare) {
		for _, message := range p.problems[name] {
			b.report(Problem{name, ReasonNotProgrammed, message})
		}
	}
	for _, c := range p.conflicts {
		if now, ok := b.ruleset.Conflict(c.Frontend, c.Loser); ok {
			b.report(Conflict(now))
		}
	}
}

// pass builds Services one after the other.
type pass struct {
	*Builder
	slots     rules.Slots
	changed   map[string]bool // namespaces whose Services have not all been built with the same share
	problems  map[service.Name][]string
	conflicts []rules.Conflict
}

// put builds Services. The share of each counts all others that have been built, so that they never want much
// more than they may have.
func (p *pass) put(names []service.Name) {
	for _, name := range names {
		delete(p.problems, name)
		svc, problems := p.state.Service(name)
		if svc != nil {
			share := p.ruleset.Share(name.Namespace)
			if share != p.share(name.Namespace) {
				p.change(name.Namespace)
			}
			problems = append(problems, p.environment.restrict(svc)...)
			compiled := rules.Compile(svc, p.environment.Node, p.slots, share)
			problems = append(problems, compiled.Problems...)
			p.conflicts = append(p.conflicts, p.ruleset.Put(compiled)...)
		} else {
			p.ruleset.Remove(name)
		}
		if len(problems) > 0 {
			if p.problems == nil {
				p.problems = map[service.Name][]string{}
			}
			p.problems[name] = problems
		}
	}
}

func (p *pass) change(namespace string) {
	if p.changed == nil {
		p.changed = map[string]bool{}
	}
	p.changed[namespace] = true
}

// recordShares records the shares of the namespaces of Services.
func (p *pass) recordShares(names []service.Name) {
	for _, name := range names {
		share := p.ruleset.Share(name.Namespace)
		if share == p.share(name.Namespace) {
			continue
		}
		p.change(name.Namespace)
		if p.shares[name.Namespace] = share; share == rules.MaxShare {
			delete(p.shares, name.Namespace)
		}
	}
}

// share returns the share with which the Services of a namespace have been built.
func (b *Builder) share(namespace string) int {
	if share, ok := b.shares[namespace]; ok {
		return share
	}
	return rules.MaxShare
}

// Reserve replaces the frontends that the node itself needs, for Services that are built from now on. It
// reports whether a Service has one of them, so that a Rebuild is needed at once.
func (b *Builder) Reserve(frontends map[service.Frontend]service.Reservation) bool {
	if b.environment.Node.Reserved = frontends; b.ruleset == nil {
		return true
	}
	for f, r := range frontends {
		if owner, ok := b.ruleset.Owner(f); ok && owner != r.By {
			return true
		}
	}
	return false
}
