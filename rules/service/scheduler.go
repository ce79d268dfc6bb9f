package service

import (
	"fmt"
	"slices"
	"strings"
)

// Scheduler says how a new connection chooses one of the endpoints.
type Scheduler uint8

const (
	// Random chooses at random.
	Random Scheduler = iota
	// RoundRobin takes the endpoints in turn.
	RoundRobin
	// Maglev hashes the address and port of the client to a slot of a table of endpoints, which all nodes
	// have. When an endpoint comes or goes, most other connections would still choose theirs.
	Maglev
	// SourceHash is the same with the address of the client alone.
	SourceHash
)

// String returns the name of the scheduler, which is that of IPVS if it has one.
func (s Scheduler) String() string { return [...]string{"random", "rr", "mh", "sh"}[s] }

// Hashes reports whether the scheduler chooses from a table of hashes.
func (s Scheduler) Hashes() bool { return s == Maglev || s == SourceHash }

// Schedulers returns all schedulers.
func Schedulers() []Scheduler { return []Scheduler{Random, RoundRobin, Maglev, SourceHash} }

// ParseScheduler returns the scheduler of a name. wrr is rr: weights count with every scheduler. The error
// about another scheduler of IPVS says which comes nearest.
func ParseScheduler(name string) (Scheduler, error) {
	if name == "wrr" {
		return RoundRobin, nil
	}
	known := Schedulers()
	if i := slices.IndexFunc(known, func(s Scheduler) bool { return s.String() == name }); i >= 0 {
		return known[i], nil
	}
	const (
		open = "needs the number of open connections of each endpoint, which rules cannot compare"
		dest = "chooses by the destination address, which is the same for all connections to a Service address"
	)
	for _, r := range []struct{ names, why, nearest string }{
		{"lc", open, "rr"},
		{"wlc sed nq", open, "rr with the annotation nftproxy.io/weights"},
		{"ovf fo", open, "random with the annotation nftproxy.io/weights"},
		{"twos", open, "random"},
		{"dh lblc lblcr", dest, "mh"},
	} {
		if slices.Contains(strings.Fields(r.names), name) {
			return Random, fmt.Errorf("scheduler %s is not available: it %s; %s comes nearest",
				name, r.why, r.nearest)
		}
	}
	return Random, fmt.Errorf("scheduler %q is not known; it can be random, rr, wrr, mh or sh", name)
}
