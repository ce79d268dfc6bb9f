package desired

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/nftproxy/nftproxy/internal/configtest"
	"github.com/nftproxy/nftproxy/proxier/state"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// applyProduct applies a Service with 20 ports, 20 external IPs and 50 endpoints. It wants 21,420 elements.
func applyProduct(s *state.State, namespace string, i int) *corev1.Service {
	meta := metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("web-%02d", i)}
	svc := &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{ClusterIP: fmt.Sprintf("10.96.1.%d", i+1)}}
	slice := &discoveryv1.EndpointSlice{ObjectMeta: meta, AddressType: discoveryv1.AddressTypeIPv4}
	slice.Labels = map[string]string{discoveryv1.LabelServiceName: meta.Name}
	for p := range 20 {
		name, port := fmt.Sprintf("p%d", p), int32(p+1)
		svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Name: name, Port: port})
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: &name, Port: &port,
			Protocol: ptr.To(corev1.ProtocolTCP)})
		svc.Spec.ExternalIPs = append(svc.Spec.ExternalIPs, fmt.Sprintf("198.51.%d.%d", i, p+1))
	}
	for e := range 50 {
		slice.Endpoints = append(slice.Endpoints,
			discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.244.%d.%d", i, e+1)}})
	}
	s.Apply(svc)
	s.Apply(slice)
	return svc
}

// TestShares fills a namespace until its Services may not have all that they want, and empties it again. One
// Service after the other or all at once, the ruleset is the same; another namespace is left alone.
func TestShares(t *testing.T) {
	s := newState()
	e := NewEnvironment(configtest.Parse(t), "node-a", s, service.Families(), nil)
	problems := map[string]string{}
	b := NewBuilder(s, func(p Problem) { problems[p.Service.String()] = p.Message })
	b.Rebuild(e, nil)
	applyProduct(s, "other", 100)
	take := func() {
		for name := range s.Take().Services {
			b.Update(name)
		}
	}
	take()
	alone := b.Ruleset().Len()
	services := make([]*corev1.Service, 40)
	for i := range services {
		services[i] = applyProduct(s, "crowded", i)
		take()
	}
	crowded, refused := b.Ruleset().Len(), b.Ruleset().Refused().Limit
	if refused == 0 || crowded+refused != alone*(len(services)+1) {
		t.Errorf("%d frontends are programmed and %d refused, want some, in sum %d", crowded, refused,
			alone*(len(services)+1))
	}
	if len(problems) != len(services) || problems["other/web-100"] != "" {
		t.Errorf("%d Services have problems, want all %d of the crowded namespace: %v", len(problems),
			len(services), problems)
	}
	fresh := NewBuilder(s, func(p Problem) {
		if p.Message != problems[p.Service.String()] {
			t.Errorf("all at once, the problem is %s", p)
		}
	}).Rebuild(e, nil)
	if fresh.Len() != crowded || fresh.Refused().Limit != refused {
		t.Errorf("all at once, %d frontends are programmed and %d refused, one after the other %d and %d",
			fresh.Len(), fresh.Refused().Limit, crowded, refused)
	}
	for _, svc := range services[1:] {
		s.Delete(svc)
		take()
	}
	if b.Ruleset().Len() != 2*alone || b.Ruleset().Refused() != (rules.Refused{}) {
		t.Errorf("after the others have gone, %d frontends are programmed and %+v refused, want %d",
			b.Ruleset().Len(), b.Ruleset().Refused(), 2*alone)
	}
}
