package kernel

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Drift is the result of CheckDrift.
type Drift int

const (
	// Unchanged: no other process changed the ruleset since the last check.
	Unchanged Drift = iota
	// Unknown: another process changed some table. Our tables pass the check, but it does not compare
	// elements.
	Unknown
	// Drifted: one of our tables differs from the ruleset.
	Drifted
)

// CheckDrift reports whether another process changed our tables since the last call, or since they were read.
// While we own our tables it costs nothing, and otherwise three small messages when no table of any program
// changed. Else it compares chains, rules and sets, and the numbers of elements where the kernel reports them
// (Linux 6.16).
//
// With Options.Own it adopts tables that lost their owner.
func (c *Conn) CheckDrift(want *rules.Ruleset) (Drift, error) {
	if !slices.ContainsFunc(want.Families(), func(f service.Family) bool { return !c.holds(f) }) {
		return Unchanged, nil
	}
	now, err := c.Generation()
	if err != nil {
		return Unknown, err
	}
	changed := now != c.seen+c.commits
	c.seen, c.commits = now, 0
	owned := true
	for _, f := range want.Families() {
		found, held, err := c.hold(f)
		if err != nil || !found {
			return Drifted, err
		}
		owned = owned && held
	}
	if !changed || owned {
		return Unchanged, nil
	}
	counts := want.Counts()
	for _, f := range want.Families() {
		same, err := c.matches(f, want, counts)
		if err != nil || !same {
			return Drifted, err
		}
	}
	return Unknown, nil
}

// matches reports whether the table of the family has the wanted chains, the fixed sets, and the wanted
// numbers of elements.
func (c *Conn) matches(f service.Family, want *rules.Ruleset, counts map[nftables.SetID]int) (bool, error) {
	r := newReader(c, f)
	found, err := r.exists()
	if err != nil || !found {
		return false, err
	}
	same, err := r.hasSets(counts)
	if err != nil || !same || r.table.Broken != "" {
		return false, err
	}
	return r.hasChains(want)
}

// hasSets reports whether the table has the fixed sets with the wanted numbers of elements. Like the rest of a
// look it keeps nothing, because fresh memory ten times a second is most of its cost.
func (r *reader) hasSets(counts map[nftables.SetID]int) (bool, error) {
	kinds, right := nftables.SetKinds(), 0
	err := r.dump(unix.NFT_MSG_GETSET, nftables.TableName, func(attributes []byte) error {
		name, s := parseSet(attributes)
		i := slices.IndexFunc(kinds, func(k nftables.SetKind) bool { return k.String() == name })
		if i < 0 {
			return nil
		}
		id := nftables.SetID{Family: r.family, Kind: kinds[i]}
		counted := s.counted && !id.Schema().Dynamic
		if s.layout == layoutOf(id) && (!counted || s.count == uint32(counts[id])) {
			right++
		}
		return nil
	})
	return right == len(kinds), err
}

// hasChains reports whether the table has the wanted chains. It takes them apart only if they are others than
// at the last time: other processes may commit all the time.
func (r *reader) hasChains(want *rules.Ruleset) (bool, error) {
	now, err := r.fingerprint()
	if err != nil || now == r.conn.verified[r.family] {
		return err == nil, err
	}
	found, err := r.chains()
	if err != nil {
		return false, err
	}
	wanted := want.Chains(r.family)
	if err := found.compare(r.table, wanted); err != nil {
		return false, err
	}
	for _, chain := range wanted {
		if !r.table.Chains[chain.Name] {
			return false, nil
		}
	}
	if again, err := r.fingerprint(); err == nil && again == now {
		r.conn.verified[r.family] = now
	}
	return r.table.Broken == "", nil
}
