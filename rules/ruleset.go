package rules

import (
	"net/netip"
	"slices"

	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Ruleset is the desired content of the tables, by Service. It collects its changes since the last call of
// [Ruleset.Done], so that the cost of a change depends only on the size of its Service.
//
// It is not safe for concurrent use.
type Ruleset struct {
	config   Config
	services map[service.Name]*Compiled
	owners   map[service.Frontend]claim
	losers   map[service.Frontend][]claim // only where more than one Service claims the frontend
	clusters refs
	hairpins refs
	counts   counts
	shapes   map[tableShape]int            // frontends of the shape; those with none keep their chain
	numbers  map[tableShape]nftables.Class // of shapes that have no computed one
	taken    map[service.Family]takenNumbers
	// unused are elements of the map shapes that the kernel has from an earlier process, and no frontend
	// needs.
	unused   map[nftables.ElementID]nftables.Element
	checks   map[service.Name]HealthCheck
	loopback map[service.Name]*Compiled // Services with nodePorts on loopback addresses
	noLocal  map[service.Family]NoLocal
	demands  map[string]demands // by namespace
	refused  Refused
	// countsEndpoints says whether elements of endpoints have counters in the kernel. It changes when the whole
	// ruleset is compared: to change it is to replace their sets.
	countsEndpoints bool

	changes changes
}

// claim is a Service's claim on a frontend.
type claim struct {
	by    *Compiled
	entry *Entry
}

// refs counts the Services that want an address in a set.
type refs map[netip.Addr]int

// NewRuleset returns a Ruleset without Services.
func NewRuleset(config Config) *Ruleset {
	config.Families = slices.Sorted(slices.Values(config.Families))
	r := &Ruleset{
		config:   config,
		services: map[service.Name]*Compiled{},
		owners:   map[service.Frontend]claim{},
		losers:   map[service.Frontend][]claim{},
		clusters: refs{},
		hairpins: refs{},
		counts:   counts{},
		shapes:   map[tableShape]int{},
		numbers:  map[tableShape]nftables.Class{},
		taken:    map[service.Family]takenNumbers{},
		unused:   map[nftables.ElementID]nftables.Element{},
		checks:   map[service.Name]HealthCheck{},
		loopback: map[service.Name]*Compiled{},
		noLocal:  map[service.Family]NoLocal{},
		demands:  map[string]demands{},
	}
	r.changes.reset()
	return r
}

// Conflict is a frontend that two Services claim.
type Conflict struct {
	Frontend      service.Frontend
	Winner, Loser service.Name
	// WinnerKind and LoserKind are by what they claim it. If both are the same, the winner is the older one.
	WinnerKind, LoserKind Kind
}

// Put adds a Service, or replaces its previous state, and returns the conflicts with other Services. Further
// changes may resolve them: see [Ruleset.Losers].
func (r *Ruleset) Put(c *Compiled) []Conflict {
	old := r.services[c.Name]
	r.drop(old)
	r.services[c.Name] = c
	var conflicts []Conflict
	for i := range c.Entries {
		e := &c.Entries[i]
		if r.has(service.FamilyOf(e.Frontend.Addr)) {
			conflicts = r.claim(claim{c, e}, conflicts)
		}
	}
	if c.HealthCheckPort != 0 {
		r.checks[c.Name] = HealthCheck{c.HealthCheckPort, c.LocalReady}
	}
	if len(c.Loopbacks) > 0 {
		r.loopback[c.Name] = c
	}
	r.countNoLocal(c, +1)
	r.demand(c, +1)
	r.count(c.ClusterIPs, nftables.ClusterIPs, r.clusters, +1)
	r.count(c.Hairpins, nftables.Hairpin, r.hairpins, +1)
	return conflicts
}

// Remove removes a Service. It does nothing if the Ruleset does not have it.
func (r *Ruleset) Remove(name service.Name) {
	r.drop(r.services[name])
	delete(r.services, name)
}

// Names returns the names of the Services, sorted.
func (r *Ruleset) Names() []service.Name {
	names := make([]service.Name, 0, len(r.services))
	for name := range r.services {
		names = append(names, name)
	}
	slices.SortFunc(names, service.Name.Compare)
	return names
}

// Slots returns what a frontend has; see [Compile].
func (r *Ruleset) Slots(f service.Frontend) Held {
	c, ok := r.owners[f]
	if !ok {
		return Held{}
	}
	e := c.entry
	return Held{e.Backends, e.Locals, e.Numbers, e.LocalNumbers}
}

// Owner returns the Service that has a frontend, and false if none has it.
func (r *Ruleset) Owner(f service.Frontend) (service.Name, bool) {
	c, ok := r.owners[f]
	if !ok {
		return service.Name{}, false
	}
	return c.by.Name, true
}

// Flows returns which flows to a frontend may stay, and false if no Service has the frontend.
func (r *Ruleset) Flows(f service.Frontend) (service.StaleFlows, bool) {
	c, ok := r.owners[f]
	if !ok {
		return service.StaleFlows{}, false
	}
	return c.entry.stale(), true
}

// HealthCheck is a healthCheckNodePort with the numbers that it answers.
type HealthCheck struct {
	Port uint16
	// LocalReady counts ready endpoints on the node, for each family of the Service: as in kube-proxy, each
	// family has a health check of its own.
	LocalReady map[service.Family]int
}

// HealthChecks returns the health checks of all Services that have one, also in families that are not
// programmed. The map is the Ruleset's own.
func (r *Ruleset) HealthChecks() map[service.Name]HealthCheck { return r.checks }

// NoLocal counts, over all Services, ports with a traffic policy Local whose endpoints are all on other
// nodes.
func (r *Ruleset) NoLocal(f service.Family) NoLocal { return r.noLocal[f] }

func (r *Ruleset) countNoLocal(c *Compiled, by int) {
	for f, n := range c.NoLocal {
		sum := r.noLocal[f]
		sum.Internal += by * n.Internal
		sum.External += by * n.External
		r.noLocal[f] = sum
	}
}

// Losers returns the conflicts about a frontend: one for each Service that claims it and does not have it.
func (r *Ruleset) Losers(f service.Frontend) []Conflict {
	conflicts := make([]Conflict, 0, len(r.losers[f]))
	for _, loser := range r.losers[f] {
		conflicts = append(conflicts, newConflict(r.owners[f], loser))
	}
	return conflicts
}

func newConflict(winner, loser claim) Conflict {
	return Conflict{winner.entry.Frontend, winner.by.Name, loser.by.Name, winner.entry.Kind, loser.entry.Kind}
}

// Conflicts returns the number of frontends that more than one Service claims.
func (r *Ruleset) Conflicts() int { return len(r.losers) }

// Frontends counts the frontends of a table by the chain of their shape. Those with a chain of their own
// count together, by what their names have in common.
func (r *Ruleset) Frontends(f service.Family) map[string]int {
	counts := map[string]int{}
	for s, n := range r.shapes {
		if s.family == f && !s.shape.isPart() {
			counts[s.shape.ChainName()] += n
		}
	}
	return counts
}

// MaxUnused is the number of shapes without a frontend that stay in the kernel until something else is
// written.
const MaxUnused = 256

// Unused returns the number of shapes in the kernel that no frontend needs.
func (r *Ruleset) Unused() int {
	n := len(r.unused)
	for _, frontends := range r.shapes {
		if frontends == 0 {
			n++
		}
	}
	return n
}

// Families returns the families that are programmed.
func (r *Ruleset) Families() []service.Family { return r.config.Families }

// Services returns the number of Services.
func (r *Ruleset) Services() int { return len(r.services) }

// Len returns the number of frontends.
func (r *Ruleset) Len() int { return len(r.owners) }

func (r *Ruleset) has(f service.Family) bool { return slices.Contains(r.config.Families, f) }

// drop removes everything that c wanted.
func (r *Ruleset) drop(c *Compiled) {
	if c == nil {
		return
	}
	for i := range c.Entries {
		if r.has(service.FamilyOf(c.Entries[i].Frontend.Addr)) {
			r.disclaim(claim{c, &c.Entries[i]})
		}
	}
	delete(r.checks, c.Name)
	delete(r.loopback, c.Name)
	r.countNoLocal(c, -1)
	r.demand(c, -1)
	r.count(c.ClusterIPs, nftables.ClusterIPs, r.clusters, -1)
	r.count(c.Hairpins, nftables.Hairpin, r.hairpins, -1)
}

// before reports whether c is stronger than d: the claim of the stronger kind, and of one kind that of the
// older Service.
func (c claim) before(d claim) bool {
	if c.entry.Kind != d.entry.Kind {
		return c.entry.Kind < d.entry.Kind
	}
	return older(c.by, d.by)
}

// claim gives the frontend to the Service with the strongest claim.
func (r *Ruleset) claim(c claim, conflicts []Conflict) []Conflict {
	f := c.entry.Frontend
	holder, held := r.owners[f]
	if !held {
		r.own(f, c)
		return conflicts
	}
	loser := c
	if c.before(holder) {
		r.own(f, c)
		loser = holder
	}
	r.losers[f] = append(r.losers[f], loser)
	return append(conflicts, newConflict(r.owners[f], loser))
}

// disclaim withdraws a claim. The strongest claim of the losers takes the frontend over.
func (r *Ruleset) disclaim(c claim) {
	f := c.entry.Frontend
	losers := r.losers[f]
	if r.owners[f].by != c.by {
		losers = slices.DeleteFunc(losers, func(l claim) bool { return l.by == c.by })
	} else if len(losers) == 0 {
		r.disown(f)
		delete(r.owners, f)
	} else {
		next := slices.MinFunc(losers, func(a, b claim) int {
			if a.before(b) {
				return -1
			}
			return 1
		})
		losers = slices.DeleteFunc(losers, func(l claim) bool { return l.by == next.by })
		r.own(f, next)
	}
	if len(losers) == 0 {
		delete(r.losers, f)
	} else {
		r.losers[f] = losers
	}
}

// own gives the frontend to c.
func (r *Ruleset) own(f service.Frontend, c claim) {
	r.disown(f)
	r.owners[f] = c
	r.counts.entry(c.entry, +1)
	for _, shape := range c.entry.tableShapes() {
		if _, ok := r.shapes[shape]; !ok {
			r.changes.shapes[shape] = struct{}{}
		}
		r.shapes[shape]++
	}
}

// disown takes the frontend from its holder, if it has one. It drops a shape without a frontend, unless the
// kernel has its chain.
func (r *Ruleset) disown(f service.Frontend) {
	holder := r.owners[f]
	r.changes.entry(f, holder.entry)
	if holder.entry == nil {
		return
	}
	r.counts.entry(holder.entry, -1)
	for _, shape := range holder.entry.tableShapes() {
		r.shapes[shape]--
		if _, unprogrammed := r.changes.shapes[shape]; unprogrammed && r.shapes[shape] == 0 {
			delete(r.shapes, shape)
			delete(r.changes.shapes, shape)
			delete(r.numbers, shape)
		}
	}
}

// older reports whether a was created before b; of two Services of the same time, the one whose name comes
// first is the older.
func older(a, b *Compiled) bool {
	if !a.Created.Equal(b.Created) {
		return a.Created.Before(b.Created)
	}
	return a.Name.Compare(b.Name) < 0
}

// count adds by to the number of Services that want each address in the set.
func (r *Ruleset) count(addrs []netip.Addr, k nftables.SetKind, in refs, by int) {
	for _, a := range addrs {
		if !r.has(service.FamilyOf(a)) {
			continue
		}
		before := in[a]
		r.changes.addr(k, a, before > 0)
		if in[a] += by; in[a] == 0 {
			delete(in, a)
		}
		if (before > 0) != (in[a] > 0) {
			r.counts[nftables.SetID{Family: service.FamilyOf(a), Kind: k}] += by
		}
	}
}
