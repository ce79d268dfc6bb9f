package explain

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/nftproxy/nftproxy/internal/configtest"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// listed are the objects of an API server, which notes what it is asked for.
type listed struct {
	services []*corev1.Service
	asked    []string
	err      error
}

func (l *listed) ReadNode(_ context.Context, name string, apply func(runtime.Object)) error {
	l.asked = append(l.asked, "node "+name)
	apply(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{
		Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}}}})
	return l.err
}

func (l *listed) ReadServices(_ context.Context, namespace, name string, apply func(runtime.Object)) error {
	l.asked = append(l.asked, "services "+namespace+"/"+name)
	for _, s := range l.services {
		if name == "" || s.Name == name {
			apply(s)
		}
	}
	return nil
}

func (l *listed) ReadEndpoints(_ context.Context, namespace, name string, apply func(runtime.Object)) error {
	l.asked = append(l.asked, "endpoints "+namespace+"/"+name)
	port, ready := int32(8080), true
	apply(&discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name,
			Labels: map[string]string{discoveryv1.LabelServiceName: name}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Port: &port}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.244.2.11"},
			Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
	})
	return nil
}

// TestRead asks an API server with three Services: only what a question needs is read.
func TestRead(t *testing.T) {
	newService := func(i int, external string) *corev1.Service {
		ip := fmt.Sprintf("10.96.0.%d", i)
		return &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("s", i)},
			Spec: corev1.ServiceSpec{ClusterIP: ip, ClusterIPs: []string{ip}, ExternalIPs: []string{external},
				Type: corev1.ServiceTypeNodePort, Ports: []corev1.ServicePort{{Port: 80, NodePort: int32(30000 + i)}}},
		}
	}
	services := []*corev1.Service{
		newService(1, "203.0.113.1"), newService(2, "203.0.113.2"), newService(3, "203.0.113.2")}
	c := configtest.Parse(t, "--hostname-override=node-a")
	none := func(service.Frontend) rules.Held { return rules.Held{} }
	read := func(l *listed, target string) (*Report, error) {
		q := Question{Target: target}
		w, err := Read(t.Context(), l, c, []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil, none, q)
		if err != nil {
			return nil, err
		}
		return Explain(w, q, nil)
	}
	for target, want := range map[string][]string{
		"default/s2":      {"services default/s2", "endpoints default/s2"},
		"10.96.0.1:80":    {"services /", "endpoints default/s1"},
		"203.0.113.2:80":  {"services /", "endpoints default/s2", "endpoints default/s3"},
		"30003":           {"services /", "endpoints default/s3"},
		"192.0.2.1:30002": {"services /", "endpoints default/s2"},
	} {
		l := &listed{services: services}
		report, err := read(l, target)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(append([]string{"node node-a"}, want...), l.asked); diff != "" {
			t.Errorf("%s asks for (-want +got)\n%s", target, diff)
		}
		if report.Verdict != "endpoint" {
			t.Errorf("%s: %+v", target, report.Decisions)
		}
	}
	if _, err := read(&listed{err: context.DeadlineExceeded}, "default/s2"); err == nil ||
		!strings.HasSuffix(err.Error(), "no answer within 10s") {
		t.Errorf("too late: %v", err)
	}
	if _, err := read(&listed{err: errors.New("refused")}, "30003"); err == nil ||
		err.Error() != "read from the API server: refused" {
		t.Errorf("refused: %v", err)
	}
}
