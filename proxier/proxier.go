// Package proxier is the daemon: it follows a source of Kubernetes objects and
// keeps the kernel in line with them.
package proxier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier/config"
	"github.com/nftproxy/nftproxy/proxier/host"
	"github.com/nftproxy/nftproxy/proxier/nft"
	"github.com/nftproxy/nftproxy/proxier/source"
	"github.com/nftproxy/nftproxy/proxier/state"
	"github.com/nftproxy/nftproxy/rules"
)

// Options are what a Proxier is made of.
type Options struct {
	Config *config.Config
	// NetNS is the file descriptor of the network namespace to program; 0 is the
	// process's own.
	NetNS int
}

// Proxier programs one node.
type Proxier struct {
	config   *config.Config
	netns    int
	name     string
	host     host.Host
	state    *state.State
	families []rules.Family
	wake     chan struct{}
	address  chan struct{} // the host's addresses changed
	synced   chan struct{} // closed when the source has delivered everything once
	once     sync.Once
	problems *problemLog
}

// New returns a Proxier.
func New(o Options) (*Proxier, error) {
	name, err := o.Config.NodeName()
	if err != nil {
		return nil, err
	}
	return &Proxier{
		config: o.Config, netns: o.NetNS, name: name,
		host:  host.Host{NetNS: o.NetNS},
		state: state.New(name),
		wake:  make(chan struct{}, 1), address: make(chan struct{}, 1), synced: make(chan struct{}),
		problems: newProblemLog(),
	}, nil
}

// Run follows the source and programs the kernel until ctx ends, which leaves the
// rules where they are. It fails at once when the kernel lacks what the rules need.
func (p *Proxier) Run(ctx context.Context) error {
	if err := p.probe(); err != nil {
		return err
	}
	conn, err := nft.Dial(nft.Options{NetNS: p.netns})
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	run := func(f func() error) {
		wg.Go(func() {
			if err := f(); err != nil {
				cancel(err)
			}
		})
	}
	run(func() error { return source.NewDir(p.config.Source).Run(ctx, p, p.problems.source) })
	if _, prefixes := p.config.NodePortAddresses(); len(prefixes) > 0 {
		run(func() error { return p.host.Watch(ctx, func() { signal(p.address) }) })
	}
	p.loop(ctx, conn)
	wg.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// probe finds out what the kernel can do.
func (p *Proxier) probe() error {
	missing, err := nft.Probe(nft.Options{NetNS: p.netns})
	if err != nil {
		return fmt.Errorf("find out what the kernel can do: %w", err)
	}
	if p.families, err = usable(missing); err != nil {
		return err
	}
	for _, advice := range host.Forwarding(true, slices.Contains(p.families, rules.IPv6)) {
		klog.InfoS("This node does not forward packets", "advice", advice)
	}
	return nil
}

// usable returns the families that the kernel has all for. A kernel may be without
// IPv6, but not without a part of what a family needs.
func usable(missing []nft.Missing) ([]rules.Family, error) {
	families := rules.Families()
	var lacks []string
	for _, m := range missing {
		if m.Family == rules.IPv6.String() && m.Feature == "table" {
			klog.InfoS("The kernel has no IPv6: only IPv4 is programmed", "needs", m.Needs)
			families = []rules.Family{rules.IPv4}
			continue
		}
		lacks = append(lacks, m.String())
	}
	if len(lacks) > 0 {
		return nil, fmt.Errorf("the kernel lacks what the rules need:\n  %s", strings.Join(lacks, "\n  "))
	}
	return families, nil
}

// Apply takes in an object of the source.
func (p *Proxier) Apply(obj runtime.Object) {
	p.state.Apply(obj)
	signal(p.wake)
}

// Delete takes an object of the source out.
func (p *Proxier) Delete(obj runtime.Object) {
	p.state.Delete(obj)
	signal(p.wake)
}

// Synced says that the source has delivered everything there was at its start.
func (p *Proxier) Synced() { p.once.Do(func() { close(p.synced) }) }

// signal makes the receiver look, once for many signals.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Bounds of the pauses between syncs: after a sync that worked, when minSyncPeriod
// is not configured; after one that failed; and for what was left over.
const (
	minPause   = 10 * time.Millisecond
	retryPause = 100 * time.Millisecond
	maxRetry   = 10 * time.Second
	tidyPause  = 30 * time.Second
)

// loop syncs at once on the first change, then no more often than minSyncPeriod,
// so that a burst becomes one sync. A sync that failed is tried again, at growing
// intervals.
func (p *Proxier) loop(ctx context.Context, k kernel) {
	s := p.newSyncer(k)
	select {
	case <-p.synced:
	case <-ctx.Done():
		return
	}
	signal(p.wake)
	retry := retryPause
	var later <-chan time.Time
	looks := time.NewTicker(lookPeriod)
	defer looks.Stop()
	for {
		select {
		case <-p.wake:
		case <-later:
			s.resync = true
		case <-looks.C:
			if err := s.look(); err != nil {
				klog.ErrorS(err, "It is not known whether the tables are as they should be")
			}
			if !s.resync || later != nil {
				continue // nothing to repair, or tried again soon anyway
			}
		case <-p.address:
			s.resync = s.resync || p.addressesMatter(s)
		case <-ctx.Done():
			return
		}
		later = nil
		start := time.Now()
		if err := s.sync(); err != nil {
			klog.ErrorS(err, "The kernel is not in line with the cluster", "retryIn", retry)
			later, retry = time.After(retry), min(2*retry, maxRetry)
			continue
		}
		retry = retryPause
		if s.untidy {
			later = time.After(tidyPause)
		}
		pause(ctx, p.pauseAfter(start))
	}
}

// pauseAfter returns how long to wait after a sync that began at start.
func (p *Proxier) pauseAfter(start time.Time) time.Duration {
	took := time.Since(start)
	if p.config.MinSyncPeriodSet {
		return p.config.Kube.NFTables.MinSyncPeriod.Duration - took
	}
	return max(minPause, took)
}

func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// addressesMatter reports whether the addresses that nodePorts are on have changed.
// Pods' interfaces come and go all the time; their addresses are none of these.
func (p *Proxier) addressesMatter(s *syncer) bool {
	g, err := p.hostGround()
	return err != nil || !slices.Equal(g.node.NodePortAddrs, s.ground.node.NodePortAddrs)
}
