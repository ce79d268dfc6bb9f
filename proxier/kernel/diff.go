package kernel

import (
	"fmt"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Diff reads the tables of the families and returns the difference to the ruleset that build makes, and the generation
// that it was read at. build gets the slots that the kernel has, so that endpoints stay in them.
func (c *Conn) Diff(families []service.Family, build func(rules.Slots) *rules.Ruleset) (
	d *rules.Delta, generation uint32, err error) {
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
