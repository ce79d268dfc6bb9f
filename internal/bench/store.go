package main

import (
	"context"
	"fmt"
	"net"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes/scheme"
)

// store writes to etcd what the API server would store. For each new Service the API server counts all ClusterIPs that
// are taken (ipallocator.Used): with 50,000 of them that takes 0.1 s, and more than half an hour until all are there.
type store struct {
	etcd    *clientv3.Client
	pending []clientv3.Op
}

// perTransaction is how many objects are written at a time: as many as etcd takes.
const perTransaction = 128

// pace is the pause between two transactions: what watches the API server is to keep up.
const pace = 20 * time.Millisecond

func newStore(c *cluster) (*store, error) {
	dial := func(context.Context, string) (conn net.Conn, err error) { return c.dial(c.plane.EtcdAddr) }
	etcd, err := clientv3.New(clientv3.Config{
		Endpoints: []string{c.plane.EtcdAddr}, DialOptions: []grpc.DialOption{grpc.WithContextDialer(dial)},
	})
	if err != nil {
		return nil, fmt.Errorf("connect to etcd: %w", err)
	}
	return &store{etcd: etcd}, nil
}

// model is a Service and what belongs to it, as the API server has stored it.
type model struct {
	service *corev1.Service
	slice   *discoveryv1.EndpointSlice
	address *networkingv1.IPAddress // that the ClusterIP is taken
}

// modelOf reads the Service that the API server was given with put.
func (c *cluster) modelOf(ctx context.Context, svc *corev1.Service) (m model, err error) {
	if m.service, err = c.client.CoreV1().Services(namespace).Get(ctx, svc.Name, metav1.GetOptions{}); err != nil {
		return m, err
	}
	if m.slice, err = c.client.DiscoveryV1().EndpointSlices(namespace).Get(ctx, svc.Name, metav1.GetOptions{}); err != nil {
		return m, err
	}
	m.address, err = c.client.NetworkingV1().IPAddresses().Get(ctx, svc.Spec.ClusterIP, metav1.GetOptions{})
	return m, err
}

// copies stores Services like the model, up to a number of them.
func (c *cluster) copies(ctx context.Context, s *store, m model, number int) error {
	for i := c.services; i < number; i++ {
		a := m.addressOf(service(serviceName(i), serviceAddr(i)))
		if err := s.put(ctx, "ipaddresses/"+a.Name, networkingv1.SchemeGroupVersion, a); err != nil {
			return err
		}
	}
	if err := s.flush(ctx); err != nil {
		return err
	}
	// The API server watches both. What it sees without its address it repairs, ten a second.
	c.calm(ctx)
	for i := c.services; i < number; i++ {
		slice := m.sliceLike(threeEndpoints(i, 0))
		if err := s.put(ctx, "endpointslices/"+namespace+"/"+slice.Name, discoveryv1.SchemeGroupVersion, slice); err != nil {
			return err
		}
	}
	for i := c.services; i < number; i++ {
		svc := m.serviceLike(service(serviceName(i), serviceAddr(i)))
		if err := s.put(ctx, "services/specs/"+namespace+"/"+svc.Name, corev1.SchemeGroupVersion, svc); err != nil {
			return err
		}
	}
	err := s.flush(ctx)
	c.calm(ctx)
	return err
}

// calm waits until the API server has taken notice of what was stored: until it takes less than a tenth of a CPU.
func (c *cluster) calm(ctx context.Context) {
	for range 20 {
		if idleCPU(ctx, c.plane.APIServer.PID(), 3*time.Second) < 0.1 {
			return
		}
	}
}

// addressOf is the one of a Service like the model.
func (m model) addressOf(svc *corev1.Service) *networkingv1.IPAddress {
	a := m.address.DeepCopy()
	renew(a, &metav1.ObjectMeta{Name: svc.Spec.ClusterIP, Labels: a.Labels})
	a.CreationTimestamp = metav1.Now() // an old one without its Service is deleted
	a.Spec.ParentRef.Name = svc.Name
	return a
}

// serviceLike is a Service that differs from the model in its name and ClusterIP.
func (m model) serviceLike(svc *corev1.Service) *corev1.Service {
	s := m.service.DeepCopy()
	renew(s, svc)
	s.Spec.ClusterIP, s.Spec.ClusterIPs, s.Spec.Selector = svc.Spec.ClusterIP, svc.Spec.ClusterIPs, svc.Spec.Selector
	return s
}

// sliceLike is a slice that differs from the model in its name and endpoints.
func (m model) sliceLike(slice *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	s := m.slice.DeepCopy()
	renew(s, slice)
	s.Endpoints = slice.Endpoints
	return s
}

// renew makes of a copied object another one.
func renew(copied, like metav1.Object) {
	copied.SetName(like.GetName())
	copied.SetLabels(like.GetLabels())
	copied.SetUID(uuid.NewUUID())
	copied.SetResourceVersion("") // it is not stored
}

// put stores an object under its key, in the encoding that the API server uses by default. Flush writes the last ones.
func (s *store) put(ctx context.Context, key string, version schema.GroupVersion, obj runtime.Object) error {
	info, ok := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
	if !ok {
		return fmt.Errorf("store %s: no encoder", key)
	}
	value, err := runtime.Encode(scheme.Codecs.EncoderForVersion(info.Serializer, version), obj)
	if err != nil {
		return fmt.Errorf("store %s: %w", key, err)
	}
	if s.pending = append(s.pending, clientv3.OpPut("/registry/"+key, string(value))); len(s.pending) < perTransaction {
		return nil
	}
	return s.flush(ctx)
}

// flush writes what is pending.
func (s *store) flush(ctx context.Context) error {
	if len(s.pending) == 0 {
		return nil
	}
	_, err := s.etcd.Txn(ctx).Then(s.pending...).Commit()
	s.pending = s.pending[:0]
	sleep(ctx, pace)
	if err != nil {
		return fmt.Errorf("write to etcd: %w", err)
	}
	return nil
}
