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

// groundPatience is how long the start waits for our Node and the ServiceCIDRs, once the Services and EndpointSlices
// are there. A kubelet that starts beside us has registered its Node by then.
const groundPatience = 30 * time.Second

// API is a source that follows an API server. It keeps no objects: of each it remembers the version that it delivered.
type API struct {
	client   *Client
	nodeName string
}

// NewAPI returns the source of what the client sees: Services and EndpointSlices, as far as they concern a service
// proxy, the Node of that name and no other, and ServiceCIDRs.
func NewAPI(client *Client, nodeName string) *API {
	return &API{client: client, nodeName: nodeName}
}

// Run follows the API server until ctx ends, and returns nil then; there is no other error. It goes on without end to
// try what does not work, at intervals that grow to between 10 s and 20 s.
//
// Synced is called when all that is there has been applied. It needs the Services and EndpointSlices. After these, our
// Node and the ServiceCIDRs are waited for as well, but for no longer than 30 s, and not for what the API server refuses
// or does not serve. Whether it serves ServiceCIDRs is asked once.
//
// Between two calls to sink there is a difference in the objects: one that is listed or watched again in the version
// that was applied is passed by, and so is the deletion of one that was not applied. Apply may come with parts left out
// that no proxy looks at. Of an object that goes to Delete only the type, namespace and name are sure to be set.
//
// Trouble goes to report, by resource, once until it changes or goes away. Sink and report are not called concurrently,
// and not after Run returned; they are not to call back.
func (a *API) Run(ctx context.Context, sink Sink, report func(error)) error {
	r := &follow{sink: sink, report: report}
	services := newKind(r, a.client.services, selector{
		// Labels that the proxies of Kubernetes agree on (KEP-2447), and what makes a Service headless.
		labels: "!service.kubernetes.io/service-proxy-name",
		fields: fields.OneTermNotEqualSelector("spec.clusterIP", corev1.ClusterIPNone),
	}, func() object { return &corev1.Service{} })
	slices := newKind(r, a.client.slices, selector{
		labels: "!" + corev1.IsHeadlessService,
	}, func() object { return &discoveryv1.EndpointSlice{} })
	node := newKind(r, a.client.nodes, selector{
		fields: fields.OneTermEqualSelector(metav1.ObjectNameField, a.nodeName),
	}, func() object { return &corev1.Node{} })
	node.awaited = true
	cidrs := newKind(r, a.client.cidrs, selector{},
		func() object { return &networkingv1.ServiceCIDR{} })

	var wg sync.WaitGroup
	for _, k := range []*kind{services, slices, node} {
		wg.Go(func() { k.run(ctx) })
	}
	wg.Go(func() {
		if a.serves(ctx, cidrs) {
			cidrs.run(ctx)
		}
	})
	r.announce(ctx, []*kind{services, slices}, []*kind{node, cidrs})
	wg.Wait()
	return nil
}

// follow is one Run of an API.
type follow struct {
	mu      sync.Mutex // held while the sink or report is called
	sink    Sink
	report  func(error)
	granted bool // the API server has given what is needed: what it refuses, it means to
}

// announce calls Synced when everything has been delivered that is to be had.
func (r *follow) announce(ctx context.Context, needed, wanted []*kind) {
	for _, k := range needed {
		if !k.wait(ctx) {
			return
		}
	}
	r.mu.Lock()
	r.granted = true
	r.mu.Unlock()
	patience, cancel := context.WithTimeout(ctx, groundPatience)
	defer cancel()
	for _, k := range wanted {
		if !k.wait(patience) && ctx.Err() == nil {
			r.tell(fmt.Errorf("start without %s: there are none after %v", k.name, groundPatience))
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if ctx.Err() == nil {
		r.sink.Synced()
	}
}

func (r *follow) tell(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report(err)
}

// kind is a resource that is followed.
type kind struct {
	*follow
	name    string // as in RBAC: "services"
	lister  cache.ListerWatcher
	new     func() object
	awaited bool // an empty list is not all there is to come

	lost bool // the last watch could not be started; used by the reflector's goroutine only

	once    sync.Once
	settled chan struct{} // closed when what is there has been delivered, or the API server will not give it
	told    string        // what stands in the way and was reported
}

// selector picks the objects of a resource.
type selector struct {
	labels string
	fields fields.Selector
}

func newKind(r *follow, c resource, s selector, new func() object) *kind {
	k := &kind{follow: r, name: c.name, new: new, settled: make(chan struct{})}
	narrow := func(options *metav1.ListOptions) {
		options.LabelSelector = s.labels
		if s.fields != nil {
			options.FieldSelector = s.fields.String()
		}
	}
	k.lister = &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			narrow(&options)
			list, err := c.list(ctx, options)
			if err != nil {
				k.trouble(ctx, "list", err)
			}
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			narrow(&options)
			err := k.reconnect(options, func(options metav1.ListOptions) error {
				_, err := c.list(ctx, options)
				return err
			})
			if err != nil {
				k.trouble(ctx, "watch", err)
				return nil, err
			}
			w, err := c.watch(ctx, options)
			k.lost = err != nil
			switch {
			case err == nil:
				k.trouble(ctx, "watch", nil)
			case options.SendInitialEvents == nil || utilnet.IsConnectionRefused(err) || apierrors.IsTooManyRequests(err):
				k.trouble(ctx, "watch", err)
			default: // the reflector tries a list, the server may be too old for a watch with initial events
			}
			return w, err
		},
	}
	return k
}

// run lists and watches until ctx ends.
func (k *kind) run(ctx context.Context) {
	// With many nodes, all proxies come back when the API server does: not all at once.
	backoff := wait.Backoff{Duration: 800 * time.Millisecond, Factor: 2, Jitter: 1, Steps: 13, Cap: 10 * time.Second}
	reflector := cache.NewReflectorWithOptions(k.lister, k.new(), newMirror(k), cache.ReflectorOptions{Name: k.name, Backoff: &backoff})
	_ = backoff.DelayWithReset(clock.RealClock{}, 2*time.Minute).Until(ctx, true, true, func(ctx context.Context) (bool, error) {
		_ = reflector.ListAndWatchWithContext(ctx) // what the API server answered was told on the way
		return false, nil
	})
}

// wait returns whether the resource is settled by the end of ctx.
func (k *kind) wait(ctx context.Context) bool {
	select {
	case <-k.settled:
		return true
	case <-ctx.Done():
	}
	return k.done() // both were there
}

// reconnect asks, where a watch is to go on after the API server was away, whether the server has come as far as
// the watch was. If its storage was replaced it may not have, and it would accept the watch and say nothing. The error
// has the reflector list again.
func (k *kind) reconnect(options metav1.ListOptions, list func(metav1.ListOptions) error) error {
	if !k.lost || options.SendInitialEvents != nil || options.ResourceVersion == "" {
		return nil
	}
	return list(metav1.ListOptions{
		LabelSelector: options.LabelSelector, FieldSelector: options.FieldSelector, Limit: 1,
		ResourceVersion: options.ResourceVersion, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
	})
}

// settle says that the start need not wait for this resource any more.
func (k *kind) settle() {
	k.once.Do(func() { close(k.settled) })
}

// done returns whether the resource is settled.
func (k *kind) done() bool {
	select {
	case <-k.settled:
		return true
	default:
		return false
	}
}
