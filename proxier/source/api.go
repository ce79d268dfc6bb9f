package source

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
)

// environmentTimeout is how long the start waits for our Node and the ServiceCIDRs after the Services and
// EndpointSlices have been applied. A kubelet that starts at the same time has registered its Node by then.
const environmentTimeout = 30 * time.Second

// API is a source that follows an API server. It is an informer without a cache: it does not keep the
// objects, but the version of each object that it applied.
type API struct {
	client   *Client
	nodeName string
}

// NewAPI returns a source for the Services and EndpointSlices that concern a service proxy, the Node of that
// name, and the ServiceCIDRs.
func NewAPI(client *Client, nodeName string) *API {
	return &API{client: client, nodeName: nodeName}
}

// Run follows the API server until ctx ends, and then returns nil; there is no other error. It retries
// without end, at intervals that grow to between 10 s and 20 s.
//
// It calls Synced when all objects have been applied. It waits for the Services and EndpointSlices without a
// limit, and then up to 30 s for our Node and the ServiceCIDRs, unless the API server forbids or does not
// serve them. It asks once whether the API server serves ServiceCIDRs.
//
// It ignores an object that it lists or watches again in the version that it applied. It removes from an
// object the fields that no proxy reads before it applies the object.
//
// It leaves out an event of more than 4 MiB and reports that: the object stays as it was.
//
// It reports an error of a resource once until it changes or is solved. It does not call sink and report
// concurrently, nor after it has returned.
func (a *API) Run(ctx context.Context, sink Sink, report func(error)) error {
	r := &apiRun{sink: sink, report: report}
	services := newInformer(r, a.client.services, selector{
		// The label with which a Service chooses another proxy (KEP-2447), and headless Services.
		labels: "!service.kubernetes.io/service-proxy-name",
		fields: fields.OneTermNotEqualSelector("spec.clusterIP", corev1.ClusterIPNone),
	}, func() object { return &corev1.Service{} })
	slices := newInformer(r, a.client.slices, selector{
		labels: "!" + corev1.IsHeadlessService,
	}, func() object { return &discoveryv1.EndpointSlice{} })
	node := newInformer(r, a.client.nodes, selector{
		fields: fields.OneTermEqualSelector(metav1.ObjectNameField, a.nodeName),
	}, func() object { return &corev1.Node{} })
	node.awaitObject = true
	cidrs := newInformer(r, a.client.cidrs, selector{},
		func() object { return &networkingv1.ServiceCIDR{} })

	var wg sync.WaitGroup
	for _, i := range []*informer{services, slices, node} {
		wg.Go(func() { i.run(ctx) })
	}
	wg.Go(func() {
		if a.serves(ctx, cidrs) {
			cidrs.run(ctx)
		}
	})
	r.sync(ctx, []*informer{services, slices}, []*informer{node, cidrs})
	wg.Wait()
	return nil
}

// apiRun is one Run of an API. Its informers share it.
type apiRun struct {
	mu         sync.Mutex // held while sink or report is called
	sink       Sink
	report     func(error)
	authorized bool // the required informers are synced: a refusal of another resource is not temporary
}

// sync calls Synced when the required informers are synced, and the optional ones or their timeout.
func (r *apiRun) sync(ctx context.Context, required, optional []*informer) {
	for _, i := range required {
		if !i.wait(ctx) {
			return
		}
	}
	r.mu.Lock()
	r.authorized = true
	r.mu.Unlock()
	limited, cancel := context.WithTimeout(ctx, environmentTimeout)
	defer cancel()
	for _, i := range optional {
		if !i.wait(limited) && ctx.Err() == nil {
			r.reportError(fmt.Errorf("start without %s: none received within %v", i.name, environmentTimeout))
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if ctx.Err() == nil {
		r.sink.Synced()
	}
}

func (r *apiRun) reportError(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report(err)
}

// informer lists and watches one resource.
type informer struct {
	*apiRun
	name        string // as in RBAC: "services"
	lister      cache.ListerWatcher
	store       *store
	new         func() object
	awaitObject bool // an empty list does not make it synced

	watchFailed bool // the last watch could not be started; only the goroutine of the reflector uses it

	once     sync.Once
	synced   chan struct{} // closed when the objects have been applied, or the API server refuses them
	reported string        // the error that is reported and not solved
	left     largeEvent    // the event that was left out last
}

// selector selects objects of a resource.
type selector struct {
	labels string
	fields fields.Selector
}

func newInformer(r *apiRun, c resource, s selector, new func() object) *informer {
	i := &informer{apiRun: r, name: c.name, new: new, synced: make(chan struct{})}
	i.store = newStore(i)
	limit := func(options *metav1.ListOptions) {
		options.LabelSelector = s.labels
		if s.fields != nil {
			options.FieldSelector = s.fields.String()
		}
	}
	i.lister = &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			limit(&options)
			list, err := c.listEach(ctx, options, new, i.store.Transformer())
			if err != nil {
				i.result(ctx, "list", err)
			}
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			limit(&options)
			err := i.checkVersion(options, func(options metav1.ListOptions) error {
				_, err := c.list(ctx, options)
				return err
			})
			if err != nil {
				i.result(ctx, "watch", err)
				return nil, err
			}
			w, err := c.watch(ctx, options, func(e largeEvent) { i.leftOut(ctx, e) })
			i.watchFailed = err != nil
			// If the API server is too old for a watch with initial events, the reflector lists.
			tooOld := options.SendInitialEvents != nil && err != nil &&
				!utilnet.IsConnectionRefused(err) && !apierrors.IsTooManyRequests(err)
			if !tooOld {
				i.result(ctx, "watch", err)
			}
			return w, err
		},
	}
	return i
}

// run lists and watches until ctx ends.
func (i *informer) run(ctx context.Context) {
	// The jitter spreads the proxies of many nodes when the API server comes back.
	backoff := wait.Backoff{
		Duration: 800 * time.Millisecond, Factor: 2, Jitter: 1, Steps: 13, Cap: 10 * time.Second,
	}
	options := cache.ReflectorOptions{Name: i.name, Backoff: &backoff}
	reflector := cache.NewReflectorWithOptions(i.lister, i.new(), i.store, options)
	delay := backoff.DelayWithReset(clock.RealClock{}, 2*time.Minute)
	_ = delay.Until(ctx, true, true, func(ctx context.Context) (bool, error) {
		_ = reflector.ListAndWatchWithContext(ctx) // the lister has reported the error
		return false, nil
	})
}

// wait waits until the informer is synced. It returns false if ctx ends before.
func (i *informer) wait(ctx context.Context) bool {
	select {
	case <-i.synced:
		return true
	case <-ctx.Done():
	}
	return i.hasSynced() // select chooses at random if both are true
}

// checkVersion makes the reflector list again if the API server does not have the version at which a watch
// resumes after the server was away. If its storage was replaced by an older one, it would accept the watch
// and send nothing until it reaches that version.
func (i *informer) checkVersion(options metav1.ListOptions, list func(metav1.ListOptions) error) error {
	if !i.watchFailed || options.SendInitialEvents != nil || options.ResourceVersion == "" {
		return nil
	}
	return list(metav1.ListOptions{
		LabelSelector: options.LabelSelector, FieldSelector: options.FieldSelector, Limit: 1,
		ResourceVersion:      options.ResourceVersion,
		ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
	})
}

// setSynced ends the wait for this resource at the start.
func (i *informer) setSynced() {
	i.once.Do(func() { close(i.synced) })
}

// hasSynced returns whether setSynced was called.
func (i *informer) hasSynced() bool {
	select {
	case <-i.synced:
		return true
	default:
		return false
	}
}
