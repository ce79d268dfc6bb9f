package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/nftproxy/nftproxy/internal/controlplane"
	"github.com/nftproxy/nftproxy/internal/lab"
)

// writers is the number of concurrent requests to the API server in a burst of changes.
const writers = 16

// cluster is a real control plane in its own network namespace, with the objects in it.
type cluster struct {
	ns       *lab.Namespace
	plane    *controlplane.ControlPlane
	client   kubernetes.Interface
	addr     string      // of the API server
	services int         // number of the numbered Services
	sticky   int         // number of the numbered Services with session affinity, from the first on
	versions map[int]int // number of replacements of the middle endpoint, by Service
}

func newCluster(ctx context.Context, dir string) (*cluster, error) {
	binary, err := controlplane.Build(ctx)
	if err != nil {
		return nil, err
	}
	ns, err := lab.NewNamespace()
	if err != nil {
		return nil, err
	}
	c := &cluster{ns: ns, versions: map[int]int{}}
	err = ns.Do(func() (err error) {
		c.plane, err = controlplane.Start(ctx, controlplane.Options{Binary: binary, Dir: dir})
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := c.connect(); err != nil {
		return nil, err
	}
	return c, c.furnish(ctx)
}

func (c *cluster) close() {
	c.plane.Close()
	_ = c.ns.Close()
}

func (c *cluster) connect() error {
	config, err := connection(c.plane.AdminKubeconfig)
	if err != nil {
		return err
	}
	u, err := url.Parse(config.Host)
	if err != nil {
		return err
	}
	c.addr = u.Host
	config.Dial = func(context.Context, string, string) (net.Conn, error) { return c.dial(c.addr) }
	config.QPS = -1
	c.client, err = kubernetes.NewForConfig(config)
	return err
}

// connection returns the configuration of all API clients.
func connection(kubeconfig string) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf
	return config, nil
}

// dial connects to the API server or etcd.
func (c *cluster) dial(addr string) (conn net.Conn, err error) {
	err = c.ns.Do(func() error {
		conn, err = net.Dial("tcp", addr)
		return err
	})
	return conn, err
}

// furnish creates the objects that every number of Services has.
func (c *cluster) furnish(ctx context.Context) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	if _, err := c.client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
		return err
	}
	node, err := c.client.CoreV1().Nodes().Create(ctx, nodeObject(), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	node.Status = nodeObject().Status
	if _, err := c.client.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{}); err != nil {
		return err
	}
	svc, slice := answering("first", firstAddr, nodePort)
	return c.put(ctx, svc, slice)
}

// grow creates Services up to a number of them, and creates the Service "last" again as the newest. It
// creates the first Service through the API server and writes copies of it to etcd.
func (c *cluster) grow(ctx context.Context, services int) error {
	if c.services == 0 {
		if err := c.put(ctx, newService(serviceName(0), serviceAddr(0)), threeEndpoints(0, 0)); err != nil {
			return err
		}
		c.services = 1
	}
	if err := c.copyFirst(ctx, services); err != nil {
		return fmt.Errorf("create %d services: %w", services, err)
	}
	c.services = services
	if err := c.drop(ctx, "last"); err != nil {
		return err
	}
	svc, slice := answering("last", lastAddr, 0)
	return c.put(ctx, svc, slice)
}

// copyFirst writes copies of the first Service, up to a number of Services.
func (c *cluster) copyFirst(ctx context.Context, services int) error {
	m, err := c.modelOf(ctx, newService(serviceName(0), serviceAddr(0)))
	if err != nil {
		return err
	}
	s, err := newStore(c)
	if err != nil {
		return err
	}
	defer s.etcd.Close()
	return c.copies(ctx, s, m, services)
}

// put creates endpoints and then their Service, so that proxies program both in one commit.
func (c *cluster) put(ctx context.Context, svc *corev1.Service, slices ...*discoveryv1.EndpointSlice) error {
	for _, s := range slices {
		if err := c.createSlice(ctx, s); err != nil {
			return err
		}
	}
	_, err := c.client.CoreV1().Services(namespace).Create(ctx, svc, metav1.CreateOptions{})
	return err
}

func (c *cluster) createSlice(ctx context.Context, s *discoveryv1.EndpointSlice) error {
	_, err := c.client.DiscoveryV1().EndpointSlices(namespace).Create(ctx, s, metav1.CreateOptions{})
	return err
}

// spread returns the Service for the i-th change. The changes are spread over all Services.
func (c *cluster) spread(i int) int { return (i * 7919) % c.services }

// slice returns the current EndpointSlice of the i-th Service.
func (c *cluster) slice(i int) *discoveryv1.EndpointSlice { return threeEndpoints(i, c.versions[i]) }

// replaced replaces the middle endpoint of the i-th Service and returns its EndpointSlice.
func (c *cluster) replaced(i int) *discoveryv1.EndpointSlice {
	c.versions[i]++
	return c.slice(i)
}

// update writes an EndpointSlice.
func (c *cluster) update(ctx context.Context, s *discoveryv1.EndpointSlice) error {
	_, err := c.client.DiscoveryV1().EndpointSlices(namespace).Update(ctx, s, metav1.UpdateOptions{})
	return err
}

// drop deletes a Service, if it exists, and then its EndpointSlices.
func (c *cluster) drop(ctx context.Context, name string) error {
	err := c.client.CoreV1().Services(namespace).Delete(ctx, name, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return c.client.DiscoveryV1().EndpointSlices(namespace).DeleteCollection(ctx, metav1.DeleteOptions{},
		metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + name})
}

// restore deletes temporary objects after the failure of a contender.
func (c *cluster) restore(ctx context.Context) error {
	left := metav1.ListOptions{LabelSelector: temporaryLabel}
	list, err := c.client.CoreV1().Services(namespace).List(ctx, left)
	if err != nil {
		return err
	}
	for _, s := range list.Items {
		err = errors.Join(err, c.client.CoreV1().Services(namespace).Delete(ctx, s.Name, metav1.DeleteOptions{}))
	}
	slices := c.client.DiscoveryV1().EndpointSlices(namespace)
	return errors.Join(err, slices.DeleteCollection(ctx, metav1.DeleteOptions{}, left))
}
