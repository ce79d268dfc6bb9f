package proxier

import (
	"fmt"
	"io"
	"net/netip"

	"github.com/nftproxy/nftproxy/proxier/config"
	"github.com/nftproxy/nftproxy/proxier/source"
	"github.com/nftproxy/nftproxy/proxier/state"
	"github.com/nftproxy/nftproxy/rules"
)

// Render writes the ruleset that the manifests of c.Source mean on our node, as an
// nft script. It needs no kernel and no privileges: the node's addresses are those
// of its Node object. Problems with objects are given to report, in order.
func Render(c *config.Config, w io.Writer, report func(error)) error {
	desired, err := desiredOf(c, report, nil, nil)
	if err != nil {
		return err
	}
	if err := desired.WriteText(w); err != nil {
		return fmt.Errorf("write ruleset: %w", err)
	}
	return nil
}

// desiredOf builds the ruleset of the manifests once. The host's addresses are
// those of the Node object where none are given.
func desiredOf(c *config.Config, report func(error), slots rules.Slots, hostAddrs []netip.Addr) (*rules.Ruleset, error) {
	name, err := c.NodeName()
	if err != nil {
		return nil, err
	}
	objects, problems, err := source.NewDir(c.Source).Load()
	if err != nil {
		return nil, fmt.Errorf("read manifests: %w", err)
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
	g := newGround(c, name, s, rules.Families(), hostAddrs)
	b := &builder{state: s, ground: g, ruleset: rules.NewRuleset(g.config), report: func(o Problem) { report(o) }}
	for _, service := range s.Services() {
		b.build(service, slots)
	}
	return b.ruleset, nil
}
