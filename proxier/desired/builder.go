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
	shares      map[string]int // by namespace: those with which its Services were compiled, if not MaxShare
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
	b.environment, b.ruleset, b.shares = e, rules.NewRuleset(e.Config), map[string]int{}
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

// build builds Services and reports what changed about their problems in the end: a Service may claim a
// frontend that a later one of them gives up, and a Service that gives one up may end the conflict of
// another. If the share of a namespace changes, it builds all Services of the namespace again.
func (b *Builder) build(names []service.Name, slots rules.Slots, contested []service.Frontend) {
	p := pass{Builder: b, slots: slots, contested: contested, problems: map[service.Name][]string{}}
	p.put(names)
	p.recordShares(names)
	if again := p.changed; len(again) > 0 {
		other := func(n service.Name) bool { return !again[n.Namespace] }
		rest := slices.DeleteFunc(b.state.Services(), other)
		p.contested = append(p.contested, b.known.contested(rest)...)
		p.put(rest)
	}
	for _, name := range slices.SortedFunc(maps.Keys(p.problems), service.Name.Compare) {
		b.known.parts(name, p.problems[name])
	}
	slices.SortFunc(p.contested, service.Frontend.Compare)
	for _, f := range slices.Compact(p.contested) {
		b.known.conflicts(f, b.ruleset.Losers(f))
	}
}

// pass builds Services one after the other.
type pass struct {
	*Builder
	slots     rules.Slots
	changed   map[string]bool           // namespaces whose Services have not all been built with the same share
	problems  map[service.Name][]string // of Services that have or had some
	contested []service.Frontend        // that may have other conflicts than before
}

// put builds Services. The share of each counts all others that have been built, so that they never want much
// more than they may have.
func (p *pass) put(names []service.Name) {
	for _, name := range names {
		svc, problems := p.service(name)
		if svc != nil {
			share := p.ruleset.Share(name.Namespace)
			if share != p.share(name.Namespace) {
				p.change(name.Namespace)
			}
			compiled := rules.Compile(svc, p.environment.Node, p.slots, share)
			problems = append(problems, compiled.Problems...)
			for _, c := range p.ruleset.Put(compiled) {
				p.contested = append(p.contested, c.Frontend)
			}
		} else {
			p.ruleset.Remove(name)
		}
		if _, had := p.problems[name]; had || len(problems) > 0 || p.known.has(name) {
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

// service returns a Service with the addresses that it may have here, and the problems of what is left out.
func (b *Builder) service(name service.Name) (*service.Service, []string) {
	svc, problems := b.state.Service(name)
	if svc != nil {
		problems = append(problems, b.environment.restrict(svc)...)
	}
	return svc, problems
}
