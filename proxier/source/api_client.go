package source

import (
	"context"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/connrotation"
	"k8s.io/client-go/util/flowcontrol"
)

// Client is a client for the resources of the Kubernetes API that a service proxy needs. It is not
// client-go's Clientset, which links every API: the program would have 33 MB instead of 21 MB (client-go
// 0.37), and much of that would be in memory on every node.
type Client struct {
	services   resource
	slices     resource
	nodes      resource
	cidrs      resource
	networking rest.Interface
	events     rest.Interface
	limits     limits
	dialer     *dialer
	kubeconfig *kubeconfig // nil without one
}

// NewClient returns a client. It reads the kubeconfig or the service account of the pod, but does not
// connect.
func NewClient(cfg ClientConfig) (*Client, error) {
	file := readKubeconfig(cfg)
	connection, err := cfg.connection()
	if err != nil {
		return nil, fmt.Errorf("configure the API client: %w", err)
	}
	client, err := NewClientFor(connection)
	if err != nil {
		return nil, err
	}
	client.kubeconfig = file
	return client, nil
}

// NewClientFor returns a client for a connection, which it does not change.
func NewClientFor(connection *rest.Config) (*Client, error) {
	return newClient(connection, defaultLimits())
}

func newClient(connection *rest.Config, limits limits) (*Client, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, discoveryv1.AddToScheme, networkingv1.AddToScheme, eventsv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("configure the API client: %w", err)
		}
	}
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion) // the ListOptions of all groups are in v1
	codecs := serializer.NewCodecFactory(scheme)
	g := &groups{connection: *connection, limits: limits, dialer: &dialer{}, codecs: codecs.WithoutConversion()}
	g.share()
	core, discovery := g.client(corev1.SchemeGroupVersion), g.client(discoveryv1.SchemeGroupVersion)
	networking, events := g.client(networkingv1.SchemeGroupVersion), g.client(eventsv1.SchemeGroupVersion)
	if g.err != nil {
		return nil, fmt.Errorf("configure the API client: %w", g.err)
	}
	codec, decoder := runtime.NewParameterCodec(scheme), codecs.UniversalDeserializer()
	return &Client{
		services:   resource{core, "services", codec, decoder, ""},
		slices:     resource{discovery, "endpointslices", codec, decoder, ""},
		nodes:      resource{core, "nodes", codec, decoder, ""},
		cidrs:      resource{networking, "servicecidrs", codec, decoder, ""},
		networking: networking,
		events:     events,
		limits:     g.limits,
		dialer:     g.dialer,
	}, nil
}

// groups creates the clients of API groups.
type groups struct {
	connection rest.Config
	limits     limits
	dialer     *dialer
	http       *http.Client
	codecs     runtime.NegotiatedSerializer
	err        error // the first one
}

// share creates what the groups share: the rate limiter and the connection.
func (g *groups) share() {
	c := &g.connection
	if c.UserAgent == "" {
		c.UserAgent = rest.DefaultKubernetesUserAgent()
	}
	if c.QPS == 0 {
		c.QPS = rest.DefaultQPS
	}
	if c.Burst == 0 {
		c.Burst = rest.DefaultBurst
	}
	if c.RateLimiter == nil && c.QPS > 0 {
		c.RateLimiter = flowcontrol.NewTokenBucketRateLimiter(c.QPS, c.Burst)
	}
	t := transport{limits: g.limits, reconnect: func() {}}
	if c.Transport == nil {
		if c.Dial == nil {
			c.Dial = g.dialer.dial
		}
		rotation := connrotation.NewDialer(c.Dial)
		c.Dial, t.reconnect = rotation.DialContext, rotation.CloseAll
	}
	c.Wrap(func(next http.RoundTripper) http.RoundTripper {
		t.next = next
		return sizeLimit{t}
	})
	g.http, g.err = rest.HTTPClientFor(c)
}

func (g *groups) client(version schema.GroupVersion) rest.Interface {
	if g.err != nil {
		return nil
	}
	c := g.connection
	c.GroupVersion, c.NegotiatedSerializer, c.APIPath = &version, g.codecs, "/apis"
	if version.Group == "" {
		c.APIPath = "/api"
	}
	client, err := rest.RESTClientForConfigAndClient(&c, g.http)
	if err != nil {
		g.err = err
	}
	return client
}

// resource lists and watches one resource in all namespaces. It is not client-go's gentype, because that
// package links the code for fakes and server-side apply, a tenth of the program.
type resource struct {
	group   rest.Interface
	name    string // as in RBAC: "services"
	options runtime.ParameterCodec
	decoder runtime.Decoder

	namespace string // "": all
}

func (r resource) list(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	return r.request(options).Do(ctx).Get()
}

// watch starts a watch. Of an error like a timeout client-go makes a watch without events; watch returns the
// error.
func (r resource) watch(
	ctx context.Context, options metav1.ListOptions, x *exchange) (watch.Interface, error) {
	options.Watch, x.watch = true, true
	w, err := r.request(options).Watch(x.context(ctx))
	if err == nil && x.err != nil {
		w.Stop()
		return nil, x.err
	}
	return w, err
}

// request returns a request that is not retried, because the callers report its error and retry.
func (r resource) request(options metav1.ListOptions) *rest.Request {
	req := r.group.Get().NamespaceIfScoped(r.namespace, r.namespace != "").Resource(r.name).VersionedParams(&options, r.options).MaxRetries(0)
	if options.TimeoutSeconds != nil {
		req.Timeout(time.Duration(*options.TimeoutSeconds) * time.Second)
	}
	return req
}

// Node returns the Node of that name. It lists, because the proxy has no other need for the right to get
// Nodes.
func (c *Client) Node(ctx context.Context, name string) (*corev1.Node, error) {
	selected := fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
	answer, err := c.nodes.list(ctx, metav1.ListOptions{FieldSelector: selected})
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", withoutURL(err))
	}
	list, ok := answer.(*corev1.NodeList)
	if !ok {
		return nil, fmt.Errorf("list nodes: unexpected type %T", answer)
	}
	for i := range list.Items {
		if list.Items[i].Name == name {
			return &list.Items[i], nil
		}
	}
	return nil, fmt.Errorf("list nodes: Node %q not found", name)
}

// CreateEvent creates an Event.
func (c *Client) CreateEvent(ctx context.Context, event *eventsv1.Event) error {
	return c.events.Post().Namespace(event.Namespace).Resource("events").Body(event).Do(ctx).Error()
}
