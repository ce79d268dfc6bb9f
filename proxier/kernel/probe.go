package kernel

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/service"
)

// probeTable is never committed.
const probeTable = "nftproxy-probe"

// Missing is a feature that rulesets use and the kernel lacks.
type Missing struct {
	Family  service.Family
	Feature string // in nft's words; empty: the family as a whole
	Needs   string // the kernel options, modules or version that provide it
	Err     error  // the kernel's refusal
	// Optional: rulesets can do without counters, which is this feature.
	Optional bool
}

// WholeFamily reports whether the kernel has no tables of the family at all, like a kernel without IPv6.
func (m Missing) WholeFamily() bool { return m.Feature == "" }

func (m Missing) String() string {
	feature := m.Feature
	if m.WholeFamily() {
		feature = "tables"
	}
	return fmt.Sprintf("%s %s: needs %s (%v)", m.Family, feature, m.Needs, m.Err)
}

// Probe returns the features that rulesets use and the kernel lacks, one for each family and need.
//
// It asks the kernel to check a specimen of every set, chain and rule that nftproxy can program, and commits
// nothing: first all of them in one batch and, if the kernel refuses that, in ever smaller parts. Each check
// takes 15 ms (Linux 6.18), because the kernel waits for readers of the objects that it drops. The kernel may
// load modules for it. After an error, such as netlink.ErrPermission or netlink.ErrAbsent, nothing is known.
func Probe() (missing []Missing, err error) {
	c, err := netlink.Dial()
	if err != nil {
		return nil, fmt.Errorf("probe nftables: %w", err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	// Only to this request a kernel without nftables answers otherwise than one without a feature.
	if _, err := c.Generation(); err != nil {
		return nil, fmt.Errorf("probe nftables: %w", err)
	}
	p := prober{check: func(features []feature) (*netlink.Error, error) { return check(c, features) }}
	if err := p.probe(allFeatures()); err != nil {
		return nil, fmt.Errorf("probe nftables: %w", err)
	}
	return p.missing, nil
}

// prober finds missing features. check asks the kernel about features: it refuses all of them if it lacks
// one.
type prober struct {
	check   func([]feature) (refused *netlink.Error, err error)
	refused []feature
	missing []Missing
}

// probe adds the features that the kernel refuses, except those that need another refused one. Each feature
// comes after those that it needs.
func (p *prober) probe(features []feature) error {
	features = slices.DeleteFunc(slices.Clone(features), func(f feature) bool {
		return slices.ContainsFunc(p.refused, f.needs)
	})
	if len(features) == 0 {
		return nil
	}
	refused, err := p.check(features)
	if err != nil || refused == nil {
		return err
	}
	if len(features) == 1 {
		return p.refuse(features[0], refused)
	}
	half := len(features) / 2
	if err := p.probe(features[:half]); err != nil {
		return err
	}
	return p.probe(features[half:])
}

// refuse adds a refused feature; of a rule, the first statement that the kernel refuses.
func (p *prober) refuse(f feature, refused *netlink.Error) error {
	for n := 1; n < len(f.rule); n++ {
		part := f
		part.rule = f.rule[:n]
		r, err := p.check([]feature{part})
		if err != nil {
			return err
		}
		if r != nil {
			f, refused = part, r
			break
		}
	}
	p.refused = append(p.refused, f)
	refused.MsgIndex = -1 // the place in the batch means nothing to a reader
	m := Missing{Family: f.family, Feature: f.String(), Needs: f.requires(), Err: refused,
		Optional: f.optional}
	same := func(o Missing) bool { return o.Family == m.Family && o.Needs == m.Needs }
	if !slices.ContainsFunc(p.missing, same) {
		p.missing = append(p.missing, m)
	}
	return nil
}

// check asks the kernel about features in one batch. It distinguishes the refusal of a feature from other
// errors.
func check(c *netlink.Conn, features []feature) (refused *netlink.Error, err error) {
	var b netlink.Batch
	created := map[string]bool{}
	for i := range features {
		if err := features[i].append(&b, created); err != nil {
			return nil, err
		}
	}
	err = c.Check(&b)
	if errors.As(err, &refused) && !errors.Is(err, netlink.ErrPermission) && refused.Errno != unix.ENOMEM {
		return refused, nil
	}
	return nil, err
}
