package kernel

import (
	"fmt"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Diff reads the tables of the families. It returns the difference between them and the ruleset that build
// returns, and the generation of the tables. build gets the slots in the kernel, so that endpoints keep
// theirs.
func (c *Conn) Diff(
	families []service.Family, build func(rules.Slots) *rules.Ruleset,
) (d *rules.Delta, generation uint32, err error) {
	s, err := c.read(families)
	if err != nil {
		return nil, 0, err
	}
	desired := build(s.tables.Slots())
	for f, t := range s.tables {
		if err := s.chains[f].compare(t, desired.Chains(f)); err != nil {
			return nil, 0, fmt.Errorf("compare table %s: %w", f, err)
		}
	}
	return rules.Diff(desired, s.tables), s.generation, nil
}
