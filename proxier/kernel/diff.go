package kernel

import (
	"fmt"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Diff reads the tables of the families and returns the difference between them and the ruleset that build
// returns. build gets the slots in the kernel, so that endpoints keep theirs.
//
// Other processes may change the ruleset meanwhile, as often as they want. If they change our tables, the
// kernel refuses the Delta or the next CheckDrift finds it.
func (c *Conn) Diff(
	families []service.Family, build func(rules.Slots) *rules.Ruleset,
) (*rules.Delta, error) {
	s, err := c.read(families)
	if err != nil {
		return nil, err
	}
	desired := build(s.tables.Slots())
	for f, t := range s.tables {
		if err := s.chains[f].compare(t, desired.Chains(f)); err != nil {
			return nil, fmt.Errorf("compare table %s: %w", f, err)
		}
	}
	return rules.Diff(desired, s.tables), nil
}
