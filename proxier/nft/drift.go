package nft

import (
	"github.com/nftproxy/nftproxy/rules"
)

// Drift says whether the kernel still holds what was programmed.
type Drift int

const (
	// Unchanged: nobody else changed the ruleset since the last look.
	Unchanged Drift = iota
	// Unknown: somebody else did, in whatever table; ours look as they should.
	Unknown
	// Drifted: one of our tables is not what it should be.
	Drifted
)

// Outline is what can be seen of a ruleset without reading all elements.
type Outline struct {
	Families []rules.Family
	Chains   func(rules.Family) []rules.Chain
	Counts   func() map[rules.SetID]int // elements of the fixed sets
}

// Look finds out whether somebody else changed our tables since it was last called, or they were read.
// When nobody changed anything, in any table, that is one small message. Otherwise
// chains, rules and sets are compared, and the numbers of elements where the kernel
// gives them (Linux 6.16).
func (c *Conn) Look(want Outline) (Drift, error) {
	now, err := c.Generation()
	if err != nil {
		return Unknown, err
	}
	expected := c.seen + c.commits
	c.seen, c.commits = now, 0
	if now == expected {
		return Unchanged, nil
	}
	counts := want.Counts()
	for _, f := range want.Families {
		same, err := c.looksRight(f, want.Chains(f), counts)
		if err != nil || !same {
			return Drifted, err
		}
	}
	return Unknown, nil
}

// looksRight compares one table with its outline.
func (c *Conn) looksRight(f rules.Family, desired []rules.Chain, counts map[rules.SetID]int) (bool, error) {
	r := &reader{conn: c, family: f, table: rules.NewTable()}
	found, err := r.exists()
	if err != nil || !found {
		return false, err
	}
	sets, err := r.layouts()
	if err != nil {
		return false, err
	}
	for _, kind := range rules.FixedSets() {
		id := rules.SetID{Family: f, Kind: kind}
		s, there := sets[kind.String()]
		if !there || s.layout != layoutOf(id) || s.counted && s.count != uint32(counts[id]) {
			return false, nil
		}
	}
	there, err := r.chains()
	if err != nil {
		return false, err
	}
	snapshot := &Snapshot{Programmed: rules.Programmed{f: r.table}, chains: map[rules.Family]chains{f: there}}
	if _, err := snapshot.Compare(func(rules.Family) []rules.Chain { return desired }); err != nil {
		return false, err
	}
	for _, want := range desired {
		if !r.table.Chains[want.Name] {
			return false, nil
		}
	}
	return r.table.Broken == "", nil
}
