// Package proxier is the daemon: it follows the cluster's objects and programs the Services of one node into
// the kernel.
//
// Sources push objects into the state from goroutines of their own; one goroutine, the [reconciler], turns
// what changed into transactions. Everything that must be in order (what is programmed, what is pending, why
// a sync is due) belongs to that goroutine, so there are no locks around it. Programming waits for nothing
// else: Events, health checks and metrics follow a commit.
//
// Start reading at [Proxier.Run], then reconciler.go.
package proxier

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	clientmetrics "k8s.io/client-go/tools/metrics"
	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier/config"
	"github.com/nftproxy/nftproxy/proxier/health"
	"github.com/nftproxy/nftproxy/proxier/host"
	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/proxier/localhost"
	"github.com/nftproxy/nftproxy/proxier/metrics"
	"github.com/nftproxy/nftproxy/proxier/source"
	"github.com/nftproxy/nftproxy/proxier/state"
	"github.com/nftproxy/nftproxy/proxier/status"
	"github.com/nftproxy/nftproxy/proxier/support"
	"github.com/nftproxy/nftproxy/proxier/takeover"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Options configure a Proxier.
type Options struct {
	Config *config.Config
	// Check returns why a new process could not run with a configuration that is valid. It is optional.
	Check func(*config.Config) error
	// Client reaches the API server; nil with a source of manifests.
	Client *source.Client
	// Version is the version of nftproxy, for /statusz.
	Version string
	// Flags are the command-line flags and their values, for /flagz.
	Flags map[string]string
	// Log keeps the last lines of the log, for `nftproxy support-bundle`. It is optional.
	Log *support.Log
}

// Proxier programs one node.
type Proxier struct {
	config      *config.Config
	check       func(*config.Config) error
	client      *source.Client
	version     string
	flags       map[string]string
	log         *support.Log
	name        string
	state       *state.State
	families    []service.Family
	metrics     *metrics.Metrics
	health      *health.ProxierHealth
	checks      *health.ServiceHealth
	loopback    *localhost.Proxy
	events      *eventer
	connections *connections
	open        *openCount
	progress    progress
	notes       notes
	tracking    tracking
	syncTimes   status.Times // durations of syncs
	programming status.Times // from changes in the cluster to their commits
	lists       sync.Pool    // of Services, for pages: with 50,000 of them most of what a page takes
	started     time.Time
	invalid     *flood // manifests that cannot be used
	wake        chan struct{}
	address     chan struct{}          // the host's addresses changed
	asked       chan func(*reconciler) // for the reconciler's goroutine
	synced      chan struct{}          // closed when the source has delivered everything once
	done        chan struct{}          // closed when everything was programmed once
	once        sync.Once
}

// New returns a Proxier.
func New(o Options) (*Proxier, error) {
	name, err := o.Config.NodeName()
	if err != nil {
		return nil, err
	}
	m := metrics.New()
	m.SetFeatures(o.Config.Features())
	h := health.NewProxierHealth(health.ProxierOptions{
		Timeout:   2 * o.Config.Kube.NFTables.SyncPeriod.Duration,
		OnHealthz: m.HealthzServed, OnLivez: m.LivezServed,
	})
	p := &Proxier{
		config: o.Config, check: o.Check, client: o.Client, version: o.Version, flags: o.Flags, name: name,
		log:      o.Log,
		loopback: localhost.NewProxy(localhostFailed),
		state:    state.New(name),
		metrics:  m,
		health:   h,
		checks:   health.NewServiceHealth(h.Healthy),
		events:   newEventer(name),
		invalid:  newFlood(),
		wake:     make(chan struct{}, 1),
		address:  make(chan struct{}, 1),
		asked:    make(chan func(*reconciler)),
		synced:   make(chan struct{}),
		done:     make(chan struct{}),
		started:  time.Now(),
	}
	p.connections = newConnections(p.readConnections)
	p.open = newOpenCount(p.countOpen)
	return p, nil
}

// errKubeconfigChanged ends a Run whose kubeconfig has changed.
var errKubeconfigChanged = errors.New("the kubeconfig changed")

// Run follows the source and programs the kernel until ctx ends, or the configuration file or the kubeconfig
// changes to another valid one, and returns nil then; the rules stay in the kernel. It fails at once when the
// kernel lacks a feature that the rules need.
func (p *Proxier) Run(ctx context.Context) error {
	if err := p.probe(); err != nil {
		return err
	}
	conn, err := kernel.Dial(kernel.Options{Own: p.config.OwnTables, Counted: p.connections.last})
	if err != nil {
		return err
	}
	if p.config.ConnectionCounters != config.CountOff {
		p.metrics.SetConnections(p.connections.sums)
	}
	defer conn.Close()
	p.setUp()
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
		clientmetrics.Register(p.metrics.RESTClient())
		p.client.OnDialed(func() { signal(p.address) })
		run(func() error { return p.events.run(ctx, p.client.CreateEvent) })
		wg.Go(func() {
			p.client.WatchKubeconfig(ctx, func() { cancel(errKubeconfigChanged) }, func(err error) {
				klog.ErrorS(err, "Kubeconfig cannot be used, continuing with the one from the start")
			})
		})
	}
	p.serve(ctx, run)
	wg.Go(func() { p.answerCommands(ctx) })
	wg.Go(func() { p.sample(ctx) })
	run(func() error { return p.follow(ctx) })
	run(func() error { return p.takeOver(ctx) })
	run(func() error { return p.watchConfig(ctx, func() { cancel(errConfigChanged) }) })
	run(func() error { return host.WatchAddrs(ctx, func() { signal(p.address) }) })
	p.events.reportNode(corev1.EventTypeNormal, "Starting", "nftproxy is starting")
	p.newReconciler(conn).run(ctx)
	p.loopback.Close()
	p.checks.Close()
	waitAtMost(&wg, endLimit)
	switch err := context.Cause(ctx); {
	case errors.Is(err, errConfigChanged):
		klog.InfoS("Configuration file changed, exiting to be restarted with it")
		return nil
	case errors.Is(err, errKubeconfigChanged):
		klog.InfoS("Kubeconfig changed, exiting to be restarted with it")
		return nil
	case errors.Is(err, context.Canceled):
		return nil
	default:
		return err
	}
}

// endLimit bounds the wait for requests at the end. client-go runs an exec plugin of the kubeconfig without a
// context: one that hangs would keep the process until the kubelet kills it.
const endLimit = 3 * time.Second

// waitAtMost waits for the group, or until the limit has passed.
func waitAtMost(wg *sync.WaitGroup, limit time.Duration) {
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(limit):
		klog.InfoS("Ending without an answer to the last requests", "waited", limit)
	}
}

// probe finds out which families and counters the kernel supports.
func (p *Proxier) probe() error {
	f, err := probeKernel()
	if err != nil {
		return err
	}
	p.use(f)
	for _, sysctl := range host.NotForwarding(p.families) {
		klog.InfoS("This node does not forward packets to pods and other nodes, set the sysctl to 1",
			"sysctl", sysctl)
	}
	return nil
}

// use leaves out what the kernel lacks.
func (p *Proxier) use(f features) {
	p.setFamilies(f.families)
	if !f.counters {
		without := *p.config
		without.ConnectionCounters = config.CountOff
		p.config = &without
	}
}

// setFamilies sets the families to program. Pages and metrics show no others.
func (p *Proxier) setFamilies(families []service.Family) {
	p.families = families
	p.health.SetFamilies(families)
	p.metrics.SetFamilies(families)
}

// features are those of the kernel that rulesets use and can do without.
type features struct {
	families []service.Family
	counters bool
}

func probeKernel() (features, error) {
	missing, err := kernel.Probe()
	if err != nil {
		return features{}, err
	}
	return usable(missing)
}

// usable returns what the kernel supports. A kernel may lack IPv6 as a whole, but not a part of what a family
// needs.
func usable(missing []kernel.Missing) (features, error) {
	f := features{families: service.Families(), counters: true}
	var lacks []string
	for _, m := range missing {
		switch {
		case m.Family == service.IPv6 && m.WholeFamily():
			klog.InfoS("Kernel does not support IPv6, programming IPv4 only", "needs", m.Needs)
			f.families = []service.Family{service.IPv4}
		case m.Optional:
			f.counters = false
			klog.InfoS("Kernel does not support counters in maps, counting no connections", "family", m.Family,
				"needs", m.Needs)
		default:
			lacks = append(lacks, m.String())
		}
	}
	if len(lacks) > 0 {
		return f, fmt.Errorf("the kernel lacks features that the rules need:\n  %s",
			strings.Join(lacks, "\n  "))
	}
	return f, nil
}

// takeOver takes over from kube-proxy. It begins when everything is programmed, so that no connection finds
// neither rules.
func (p *Proxier) takeOver(ctx context.Context) error {
	select {
	case <-p.done:
	case <-ctx.Done():
		return nil
	}
	return takeover.Run(ctx, takeover.Options{
		MetricsAddr: takeover.MetricsAddr(p.config.Kube.MetricsBindAddress),
		Remove:      p.config.TakeOver,
		Report:      p.events.reportNode,
		Standing:    p.noteKubeProxy,
	})
}

// noteKubeProxy notes what is wrong about kube-proxy, or that nothing is.
func (p *Proxier) noteKubeProxy(what string) {
	if what == "" {
		p.notes.clear(aboutKubeProxy)
		return
	}
	p.notes.set(aboutKubeProxy, what, "Keep kube-proxy off this node, and remove its rules with --take-over.")
}

// signal wakes the receiver, once for many signals.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
