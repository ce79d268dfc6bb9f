package desired

import (
	"fmt"
	"net/netip"

	"github.com/nftproxy/nftproxy/proxier/config"
	"github.com/nftproxy/nftproxy/proxier/source"
	"github.com/nftproxy/nftproxy/proxier/state"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// FromManifests reads the manifests of c.Source and returns a function that builds their ruleset for our
// node, with endpoints in the given slots. If hostAddrs is nil, the addresses of the Node object replace
// them. FromManifests and build call report for each problem with an object, in order.
func FromManifests(c *config.Config, hostAddrs []netip.Addr, report func(error)) (
	build func(rules.Slots) *rules.Ruleset, err error) {
	b, e, err := NewManifestBuilder(c, hostAddrs, report)
	if err != nil {
		return nil, err
	}
	return func(slots rules.Slots) *rules.Ruleset { return b.Rebuild(e, slots) }, nil
}

// NewManifestBuilder is FromManifests for a caller that needs the Builder, which has no ruleset yet, and the
// Environment.
func NewManifestBuilder(c *config.Config, hostAddrs []netip.Addr, report func(error)) (
	*Builder, Environment, error) {
	name, err := c.NodeName()
	if err != nil {
		return nil, Environment{}, err
	}
	objects, problems, err := source.NewDir(c.Source).Load()
	if err != nil {
		return nil, Environment{}, fmt.Errorf("read manifests: %w", err)
	}
	for _, p := range problems {
		report(p)
	}
	s := state.New(name)
	for _, obj := range objects {
		s.Apply(obj)
	}
	if hostAddrs == nil {
		hostAddrs = s.Node().Addrs
	}
	e := NewEnvironment(c, name, s, service.Families(), hostAddrs)
	return NewBuilder(s, func(p Problem) { report(p) }), e, nil
}
