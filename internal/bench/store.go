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

// store writes objects to etcd as the API server does. The API server counts all allocated ClusterIPs for
// each new Service (ipallocator.Used). With 50,000 Services that takes 0.1 s each, and more than half an hour
// to create them.
type store struct {
	etcd    *clientv3.Client
	pending []clientv3.Op
}

// perTransaction is the number of objects in a transaction, the default limit of etcd (--max-txn-ops).
const perTransaction = 128

// pace is the pause after a transaction, so that watchers of the API server keep up.
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

// model is a Service with its other objects, as the API server has stored them.
type model struct {
	service *corev1.Service
	slice   *discoveryv1.EndpointSlice
	address *networkingv1.IPAddress // allocation of the ClusterIP
}

// modelOf reads a Service that put has created.
func (c *cluster) modelOf(ctx context.Context, svc *corev1.Service) (m model, err error) {
	m.service, err = c.client.CoreV1().Services(namespace).Get(ctx, svc.Name, metav1.GetOptions{})
	if err != nil {
		return m, err
	}
	m.slice, err = c.client.DiscoveryV1().EndpointSlices(namespace).Get(ctx, svc.Name, metav1.GetOptions{})
	if err != nil {
		return m, err
	}
	m.address, err = c.client.NetworkingV1().IPAddresses().Get(ctx, svc.Spec.ClusterIP, metav1.GetOptions{})
	return m, err
}

// copies stores copies of the model, up to a number of Services.
func (c *cluster) copies(ctx context.Context, s *store, m model, number int) error {
	for i := c.services; i < number; i++ {
		a := m.addressOf(newService(serviceName(i), serviceAddr(i)))
		if err := s.put(ctx, "ipaddresses/"+a.Name, networkingv1.SchemeGroupVersion, a); err != nil {
			return err
		}
	}
	if err := s.flush(ctx); err != nil {
		return err
	}
	// The API server watches both. It repairs a Service without an IPAddress, at ten per second.
	c.calm(ctx)
	for i := c.services; i < number; i++ {
		slice := m.sliceLike(threeEndpoints(i, 0))
		key := "endpointslices/" + namespace + "/" + slice.Name
		if err := s.put(ctx, key, discoveryv1.SchemeGroupVersion, slice); err != nil {
			return err
		}
	}
	for i := c.services; i < number; i++ {
		svc := m.serviceLike(newService(serviceName(i), serviceAddr(i)))
		key := "services/specs/" + namespace + "/" + svc.Name
		if err := s.put(ctx, key, corev1.SchemeGroupVersion, svc); err != nil {
			return err
		}
	}
	err := s.flush(ctx)
	c.calm(ctx)
	return err
}

// calm waits until the API server has processed the stored objects and uses less than a tenth of a CPU.
func (c *cluster) calm(ctx context.Context) {
	for range 20 {
		if idleCPU(ctx, c.plane.APIServer.PID(), 3*time.Second) < 0.1 {
			return
		}
	}
}

// addressOf returns the IPAddress of a copy of the model.
func (m model) addressOf(svc *corev1.Service) *networkingv1.IPAddress {
	a := m.address.DeepCopy()
	renew(a, &metav1.ObjectMeta{Name: svc.Spec.ClusterIP, Labels: a.Labels})
	a.CreationTimestamp = metav1.Now() // the API server deletes an old one without its Service
	a.Spec.ParentRef.Name = svc.Name
	return a
}

// serviceLike returns a copy of the Service of the model with the name, ClusterIP and selector of svc.
func (m model) serviceLike(svc *corev1.Service) *corev1.Service {
	s := m.service.DeepCopy()
	renew(s, svc)
	s.Spec.ClusterIP, s.Spec.ClusterIPs = svc.Spec.ClusterIP, svc.Spec.ClusterIPs
	s.Spec.Selector = svc.Spec.Selector
	return s
}

// sliceLike returns a copy of the EndpointSlice of the model with the name and endpoints of slice.
func (m model) sliceLike(slice *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	s := m.slice.DeepCopy()
	renew(s, slice)
	s.Endpoints = slice.Endpoints
	return s
}

// renew gives a copied object a new identity.
func renew(copied, like metav1.Object) {
	copied.SetName(like.GetName())
	copied.SetLabels(like.GetLabels())
	copied.SetUID(uuid.NewUUID())
	copied.SetResourceVersion("") // not part of the stored object
}

// put stores an object under its key, in the default encoding of the API server. The caller must call flush
// at the end.
func (s *store) put(ctx context.Context, key string, version schema.GroupVersion, obj runtime.Object) error {
	types := scheme.Codecs.SupportedMediaTypes()
	info, ok := runtime.SerializerInfoForMediaType(types, runtime.ContentTypeProtobuf)
	if !ok {
		return fmt.Errorf("store %s: no protobuf encoder", key)
	}
	value, err := runtime.Encode(scheme.Codecs.EncoderForVersion(info.Serializer, version), obj)
	if err != nil {
		return fmt.Errorf("store %s: %w", key, err)
	}
	s.pending = append(s.pending, clientv3.OpPut("/registry/"+key, string(value)))
	if len(s.pending) < perTransaction {
		return nil
	}
	return s.flush(ctx)
}

// flush writes the pending objects.
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
