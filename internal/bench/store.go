package main

import (
	"context"
	"fmt"
	"net"

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

// perTransaction is how many objects are written at a time. Etcd takes 128.
const perTransaction = 120

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

// write stores another Service that differs from the model in what it is given. Flush writes the last ones.
func (s *store) write(ctx context.Context, m model, svc *corev1.Service, slice *discoveryv1.EndpointSlice) error {
	newService := m.service.DeepCopy()
	renew(newService, svc)
	newService.Spec.ClusterIP, newService.Spec.ClusterIPs = svc.Spec.ClusterIP, svc.Spec.ClusterIPs
	newService.Spec.Selector = svc.Spec.Selector
	newSlice := m.slice.DeepCopy()
	renew(newSlice, slice)
	newSlice.Endpoints = slice.Endpoints
	address := m.address.DeepCopy()
	renew(address, &metav1.ObjectMeta{Name: svc.Spec.ClusterIP, Labels: address.Labels})
	address.Spec.ParentRef.Name = svc.Name
	err := s.put("ipaddresses/"+address.Name, networkingv1.SchemeGroupVersion, address)
	if err == nil {
		err = s.put("endpointslices/"+namespace+"/"+slice.Name, discoveryv1.SchemeGroupVersion, newSlice)
	}
	if err == nil {
		err = s.put("services/specs/"+namespace+"/"+svc.Name, corev1.SchemeGroupVersion, newService)
	}
	if err != nil || len(s.pending) < perTransaction {
		return err
	}
	return s.flush(ctx)
}

// renew makes of a copied object another one.
func renew(copied, like metav1.Object) {
	copied.SetName(like.GetName())
	copied.SetLabels(like.GetLabels())
	copied.SetUID(uuid.NewUUID())
	copied.SetResourceVersion("") // it is not stored
}

// put adds an object under its key, in the encoding that the API server uses by default.
func (s *store) put(key string, version schema.GroupVersion, obj runtime.Object) error {
	info, ok := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
	if !ok {
		return fmt.Errorf("store %s: no encoder", key)
	}
	value, err := runtime.Encode(scheme.Codecs.EncoderForVersion(info.Serializer, version), obj)
	if err != nil {
		return fmt.Errorf("store %s: %w", key, err)
	}
	s.pending = append(s.pending, clientv3.OpPut("/registry/"+key, string(value)))
	return nil
}

func (s *store) flush(ctx context.Context) error {
	if len(s.pending) == 0 {
		return nil
	}
	_, err := s.etcd.Txn(ctx).Then(s.pending...).Commit()
	s.pending = s.pending[:0]
	if err != nil {
		return fmt.Errorf("write to etcd: %w", err)
	}
	return nil
}
