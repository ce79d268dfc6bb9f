package source

import (
	"context"
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/gentype"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"
)

// Client reaches an API server for what a service proxy needs of it. It is not client-go's Clientset, with which
// the program is twice as large: that one has every API, and much of it ends up in memory.
type Client struct {
	services   *gentype.ClientWithList[*corev1.Service, *corev1.ServiceList]
	slices     *gentype.ClientWithList[*discoveryv1.EndpointSlice, *discoveryv1.EndpointSliceList]
	nodes      *gentype.ClientWithList[*corev1.Node, *corev1.NodeList]
	cidrs      *gentype.ClientWithList[*networkingv1.ServiceCIDR, *networkingv1.ServiceCIDRList]
	networking rest.Interface
	events     rest.Interface
}

// NewClient returns a client for the API server. It reads the kubeconfig or the pod's service account, but does not connect.
func NewClient(cfg ClientConfig) (*Client, error) {
	connection, err := cfg.connection()
	if err != nil {
		return nil, fmt.Errorf("configure the API client: %w", err)
	}
	return NewClientFor(connection)
}

// NewClientFor returns a client for the API server of the connection, which it does not change.
func NewClientFor(connection *rest.Config) (*Client, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, discoveryv1.AddToScheme, networkingv1.AddToScheme, eventsv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("configure the API client: %w", err)
		}
	}
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion) // for the options of all groups
	g := &groups{connection: *connection, codecs: serializer.NewCodecFactory(scheme).WithoutConversion()}
	g.share()
	core, discovery := g.client(corev1.SchemeGroupVersion), g.client(discoveryv1.SchemeGroupVersion)
	networking, events := g.client(networkingv1.SchemeGroupVersion), g.client(eventsv1.SchemeGroupVersion)
	if g.err != nil {
		return nil, fmt.Errorf("configure the API client: %w", g.err)
	}
	codec := runtime.NewParameterCodec(scheme)
	return &Client{
		services: gentype.NewClientWithList("services", core, codec, "",
			func() *corev1.Service { return &corev1.Service{} }, func() *corev1.ServiceList { return &corev1.ServiceList{} }),
		slices: gentype.NewClientWithList("endpointslices", discovery, codec, "",
			func() *discoveryv1.EndpointSlice { return &discoveryv1.EndpointSlice{} },
			func() *discoveryv1.EndpointSliceList { return &discoveryv1.EndpointSliceList{} }),
		nodes: gentype.NewClientWithList("nodes", core, codec, "",
			func() *corev1.Node { return &corev1.Node{} }, func() *corev1.NodeList { return &corev1.NodeList{} }),
		cidrs: gentype.NewClientWithList("servicecidrs", networking, codec, "",
			func() *networkingv1.ServiceCIDR { return &networkingv1.ServiceCIDR{} },
			func() *networkingv1.ServiceCIDRList { return &networkingv1.ServiceCIDRList{} }),
		networking: networking, events: events,
	}, nil
}

// groups makes clients of groups of the API.
type groups struct {
	connection rest.Config
	http       *http.Client
	codecs     runtime.NegotiatedSerializer
	err        error // the first
}

// share sets up what all groups have in common: one limit of requests, and one connection.
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

// Node returns the Node of that name. It lists: to get Nodes takes a right that is not needed otherwise.
func (c *Client) Node(ctx context.Context, name string) (*corev1.Node, error) {
	list, err := c.nodes.List(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()})
	if err != nil {
		return nil, fmt.Errorf("ask the API server: %w", err)
	}
	for i := range list.Items {
		if list.Items[i].Name == name {
			return &list.Items[i], nil
		}
	}
	return nil, fmt.Errorf("the API server has no Node %q", name)
}

// CreateEvent stores an Event.
func (c *Client) CreateEvent(ctx context.Context, event *eventsv1.Event) error {
	return c.events.Post().Namespace(event.Namespace).Resource("events").Body(event).Do(ctx).Error()
}
