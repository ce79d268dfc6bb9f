// Package proxier is the daemon: it follows a source of Kubernetes objects and
// keeps the kernel in line with them.
package proxier

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier/config"
	"github.com/nftproxy/nftproxy/proxier/health"
	"github.com/nftproxy/nftproxy/proxier/host"
	"github.com/nftproxy/nftproxy/proxier/metrics"
	"github.com/nftproxy/nftproxy/proxier/nft"
	"github.com/nftproxy/nftproxy/proxier/source"
	"github.com/nftproxy/nftproxy/proxier/state"
	"github.com/nftproxy/nftproxy/rules"
)

// Options are what a Proxier is made of.
type Options struct {
	Config *config.Config
	// Client reaches the API server; nil with a source of manifests.
	Client *source.Client
	// NetNS is the file descriptor of the network namespace to program; 0 is the
	// process's own.
	NetNS int
}

// Proxier programs one node.
type Proxier struct {
	config   *config.Config
	client   *source.Client
	netns    int
	name     string
	host     host.Host
	state    *state.State
	families []rules.Family
	metrics  *metrics.Metrics
	health   *health.ProxierHealth
	checks   *health.ServiceHealth
	events   *eventer
	wake     chan struct{}
	address  chan struct{} // the host's addresses changed
	synced   chan struct{} // closed when the source has delivered everything once
	done     chan struct{} // closed when everything was programmed once
	once     sync.Once
}

// New returns a Proxier.
func New(o Options) (*Proxier, error) {
	name, err := o.Config.NodeName()
	if err != nil {
		return nil, err
	}
	m := metrics.New(rules.Families())
	h := health.NewProxierHealth(health.ProxierOptions{
		Timeout: 2 * o.Config.Kube.NFTables.SyncPeriod.Duration, Families: rules.Families(),
		OnHealthz: m.HealthzServed, OnLivez: m.LivezServed,
	})
	return &Proxier{
		config: o.Config, client: o.Client, netns: o.NetNS, name: name,
		host:    host.Host{NetNS: o.NetNS},
		state:   state.New(name),
		metrics: m,
		health:  h,
		checks:  health.NewServiceHealth(h.Healthy),
		events:  newEventer(name),
		wake:    make(chan struct{}, 1), address: make(chan struct{}, 1), synced: make(chan struct{}), done: make(chan struct{}),
	}, nil
}

// errConfigChanged ends a Run whose configuration file is no longer what it was.
var errConfigChanged = errors.New("the configuration file changed")

// Run follows the source and programs the kernel until ctx ends or the
// configuration file changes, and returns nil then; the rules stay where they are.
// It fails at once when the kernel lacks what the rules need.
func (p *Proxier) Run(ctx context.Context) error {
	if err := p.probe(); err != nil {
		return err
	}
	conn, err := nft.Dial(nft.Options{NetNS: p.netns, Own: p.config.OwnTables})
	if err != nil {
		return err
	}
	defer conn.Close()
	p.SetUp()
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
	if p.client != nil {
		run(func() error { return p.events.run(ctx, p.client.CreateEvent) })
	}
	p.serve(ctx, run)
	run(func() error { return p.follow(ctx) })
	run(func() error { return p.watchKubeProxy(ctx) })
	run(func() error { return p.config.Watch(ctx, func() { cancel(errConfigChanged) }) })
	if _, prefixes := p.config.NodePortAddresses(); len(prefixes) > 0 {
		run(func() error { return p.host.Watch(ctx, func() { signal(p.address) }) })
	}
	p.events.nodeNote(corev1.EventTypeNormal, "Starting", "nftproxy is starting")
	p.loop(ctx, conn)
	p.checks.Close()
	wg.Wait()
	switch err := context.Cause(ctx); {
	case errors.Is(err, errConfigChanged):
		klog.InfoS("The configuration file changed: stopping, to be started again with it")
		return nil
	case errors.Is(err, context.Canceled):
		return nil
	default:
		return err
	}
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

// signal makes the receiver look, once for many signals.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// The least pause between syncs when minSyncPeriod is not configured; the bounds of
// that before a failed sync is tried again; and when what was left over is seen to.
const (
	minPause   = 10 * time.Millisecond
	retryPause = 100 * time.Millisecond
	maxRetry   = 10 * time.Second
	tidyPause  = 30 * time.Second
)

// loop syncs at once on the first change, then no more often than minSyncPeriod,
// so that a burst becomes one sync. A sync that failed is tried again, at growing
// intervals; changes meanwhile try as well, with the same pauses.
func (p *Proxier) loop(ctx context.Context, k kernel) {
	s := p.newSyncer(k)
	select {
	case <-p.synced:
	case <-ctx.Done():
		return
	}
	signal(p.wake)
	var retry, tidy <-chan time.Time // what failed; what was left over
	retryIn := retryPause
	looks := time.NewTicker(lookPeriod)
	defer looks.Stop()
	for ctx.Err() == nil {
		select {
		case <-p.wake:
		case <-retry:
		case <-tidy:
			s.resync, tidy = true, nil
		case <-looks.C:
			if s.closed {
				s.tellClosed(s.checks.Retry())
			}
			if err := s.look(); err != nil {
				klog.ErrorS(err, "It is not known whether the tables are as they should be")
			}
			if !s.resync || retry != nil {
				continue // nothing to repair, or tried again soon anyway
			}
		case <-p.address:
			if !p.addressesMatter(s) {
				continue
			}
			s.resync, s.suspicious = true, false
		case <-ctx.Done():
			return
		}
		start := time.Now()
		if err := s.sync(); err != nil {
			klog.ErrorS(err, "The kernel is not in line with the cluster", "retryIn", retryIn)
			retry, retryIn = time.After(retryIn), min(2*retryIn, maxRetry)
		} else {
			retry, retryIn = nil, retryPause
			p.markDone()
		}
		switch {
		case !s.untidy:
			tidy = nil
		case tidy == nil:
			tidy = time.After(tidyPause)
		}
		pause(ctx, p.pauseAfter(start))
	}
}

// markDone says that everything was programmed once. The start takes several times
// the memory that what follows does, and the system gets that back.
func (p *Proxier) markDone() {
	select {
	case <-p.done:
	default:
		close(p.done)
		debug.FreeOSMemory()
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
