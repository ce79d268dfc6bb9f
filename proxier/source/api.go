package source

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
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
// without end, at intervals that grow to between 10 s and 20 s. It gives up a request that is not answered
// within 30 s, and resumes a watch in which nothing arrives for 3 minutes.
//
// It calls Synced when all objects have been applied. It waits for the Services and EndpointSlices without a
// limit, and then up to 30 s for our Node and the ServiceCIDRs, unless the API server forbids or does not
// serve them. It asks once whether the API server serves ServiceCIDRs.
//
// It ignores an object that it lists or watches again with the same content. It removes from an object the
// fields that no proxy reads before it applies the object.
//
// It leaves out an event of more than 4 MiB and reports that: the object stays as it was.
//
// If a watch was interrupted, it makes sure that the storage of the API server has not gone back in time, and
// reads everything again if it has (api_resume.go).
//
// It reports an error of a resource once until it changes or is solved, and an API server that does not
// answer once for all resources. It does not call sink and report concurrently, nor after it has returned.
func (a *API) Run(ctx context.Context, sink Sink, report Reporter) error {
	r := &apiRun{sink: sink, report: report.complete(), limits: a.client.limits}
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
	limits     limits
	mu         sync.Mutex // held while sink or report is called
	sink       Sink
	report     Reporter
	outage     outage
	authorized bool // the required informers are synced: a refusal of another resource is not temporary
}

// sync calls Synced when the required informers are synced, and the optional ones or their timeout.
func (r *apiRun) sync(ctx context.Context, required, optional []*informer) {
	if !r.reportMissing(ctx, required) {
		return
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
	r.report.Failed(err)
}

// informer lists and watches one resource.
type informer struct {
	*apiRun
	resource
	selector
	store       *store
	new         func() object
	awaitObject bool // an empty list does not make it synced
	behind      bool // the API server was behind at the last resume; only the reflector's goroutine uses it

	heard    atomic.Int64 // when the API server was last heard, or the start, in nanoseconds since 1970
	once     sync.Once
	synced   chan struct{} // closed when the objects have been applied, or the API server refuses them
	reported string        // the answer that is reported and not solved
	left     largeEvent    // the event that was left out last
}

// selector selects objects of a resource.
type selector struct {
	labels string
	fields fields.Selector
}

func (s selector) limit(options *metav1.ListOptions) {
	options.LabelSelector = s.labels
	if s.fields != nil {
		options.FieldSelector = s.fields.String()
	}
}

func newInformer(r *apiRun, c resource, s selector, new func() object) *informer {
	i := &informer{apiRun: r, resource: c, selector: s, new: new, synced: make(chan struct{})}
	i.store = newStore(i)
	i.heard.Store(time.Now().UnixNano())
	return i
}

// run lists and watches until ctx ends.
func (i *informer) run(ctx context.Context) {
	i.hear()
	lister := &cache.ListWatch{ListWithContextFunc: i.startList, WatchFuncWithContext: i.startWatch}
	backoff := retryBackoff()
	options := cache.ReflectorOptions{Name: i.name, Backoff: &backoff}
	reflector := cache.NewReflectorWithOptions(lister, i.new(), i.store, options)
	delay := backoff.DelayWithReset(clock.RealClock{}, 2*time.Minute)
	_ = delay.Until(ctx, true, true, func(ctx context.Context) (bool, error) {
		_ = reflector.ListAndWatchWithContext(ctx) // startList and startWatch have reported the error
		return false, nil
	})
}

// retryBackoff returns the intervals of retries. The jitter spreads the proxies of many nodes when the API
// server comes back.
func retryBackoff() wait.Backoff {
	return wait.Backoff{
		Duration: 800 * time.Millisecond, Factor: 2, Jitter: 1, Steps: 13, Cap: 10 * time.Second,
	}
}

// startList lists for the reflector.
func (i *informer) startList(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	i.limit(&options)
	i.forget(&options)
	list, err := i.listEach(i.exchange(ctx).context(ctx), options, i.new, i.store.Transformer())
	i.result(ctx, "list", err)
	return list, err
}

// startWatch starts a watch for the reflector. It retries while there is no answer, because the reflector
// would list, which costs the API server much more than to resume a watch.
func (i *informer) startWatch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	i.limit(&options)
	began, backoff := time.Now(), retryBackoff()
	for {
		var w watch.Interface
		var err error
		if options.SendInitialEvents != nil {
			w, err = i.watchAll(ctx, options)
		} else {
			w, err = i.resume(ctx, options, time.Since(began))
		}
		if err == nil || isAnswer(err) || ctx.Err() != nil {
			return w, err
		}
		select {
		case <-time.After(backoff.Step()):
		case <-ctx.Done():
		}
	}
}

// watchAll starts a watch that begins with all objects.
func (i *informer) watchAll(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	i.forget(&options)
	w, err := i.watch(ctx, options, i.exchange(ctx))
	if err != nil && isAnswer(err) {
		return nil, err // the API server may be too old for this: the reflector lists
	}
	i.result(ctx, "watch", err)
	return w, err
}

// exchange returns what a request needs to say that the API server was heard.
func (i *informer) exchange(ctx context.Context) *exchange {
	return &exchange{
		heard: i.hear,
		lost:  func(err error) { i.result(ctx, "watch", err) },
		left:  func(e largeEvent) { i.leftOut(ctx, e) },
	}
}

// hear records that the API server was heard about this resource.
func (i *informer) hear() {
	i.heard.Store(time.Now().UnixNano())
	i.report.Heard(i.name)
}

func (i *informer) lastHeard() time.Time { return time.Unix(0, i.heard.Load()) }

// wait waits until the informer is synced. It returns false if ctx ends before.
func (i *informer) wait(ctx context.Context) bool {
	select {
	case <-i.synced:
		return true
	case <-ctx.Done():
	}
	return i.hasSynced() // select chooses at random if both are true
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
