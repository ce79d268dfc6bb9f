package proxier

import (
	"time"

	"github.com/nftproxy/nftproxy/proxier/nft"
)

// lookPeriod is how often it is checked whether somebody else changed the ruleset.
const lookPeriod = 250 * time.Millisecond

// Somebody may write to other tables all the time. Reading ours because of that
// takes at most one part in compareShare of the time, and happens no more often
// than every comparePeriod.
const (
	compareShare  = 50
	comparePeriod = 5 * time.Second
)

// look finds out whether what is programmed has been changed by somebody else, and
// if so, asks for a full sync, which repairs it.
func (s *syncer) look() error {
	if s.ruleset == nil || s.resync {
		return nil
	}
	drift, err := s.kernel.Look(nft.Outline{
		Families: s.ground.config.Families, Chains: s.ruleset.Chains, Counts: s.ruleset.Counts})
	switch {
	case err != nil, drift == nft.Unknown:
		s.suspicious = true // also what a look has missed is found by reading it all
	case drift == nft.Drifted:
		s.drifted, s.resync = true, true
	}
	if s.suspicious && time.Since(s.compared) > max(comparePeriod, compareShare*s.compareTime) {
		s.resync = true
	}
	return err
}
