package state

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/nftproxy/nftproxy/rules/service"
)

// event is one Apply or Delete.
type event struct {
	obj  runtime.Object
	gone bool
}

func (s *State) do(e event) {
	if e.gone {
		s.Delete(e.obj)
	} else {
		s.Apply(e.obj)
	}
}

func TestTake(t *testing.T) {
	other := web()
	other.Name = "other"
	moved := webSlice("web-1", "10.244.1.1")
	moved.Labels[discoveryv1.LabelServiceName] = "other"
	orphan := webSlice("web-1", "10.244.1.1")
	orphan.Labels = nil
	cidr := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "a"},
		Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.96.0.0/16"}}}
	s := New("n1")
	steps := []struct {
		what string
		event
		want string
	}{
		{"a Service is added", event{obj: web()}, "[default/web] false"},
		{"another one", event{obj: other}, "[default/other] false"},
		{"a slice is added", event{obj: webSlice("web-1", "10.244.1.1")}, "[default/web] false"},
		{"the slice moves to another Service", event{obj: moved}, "[default/other default/web] false"},
		{"back again", event{obj: webSlice("web-1", "10.244.1.1")}, "[default/other default/web] false"},
		{"the slice loses its Service", event{obj: orphan}, "[default/web] false"},
		{"and again", event{obj: orphan}, "[] false"},
		{"a second slice", event{obj: webSlice("web-2", "10.244.1.2")}, "[default/web] false"},
		{"an unknown slice is deleted", event{webSlice("web-9"), true}, "[] false"},
		{"the slice is deleted, with the label of another Service", event{obj: func() runtime.Object {
			s := webSlice("web-2")
			s.Labels[discoveryv1.LabelServiceName] = "other"
			return s
		}(), gone: true}, "[default/web] false"},
		{"the Service is deleted", event{web(), true}, "[default/web] false"},
		{"and again", event{web(), true}, "[] false"},
		{"a ServiceCIDR", event{obj: cidr}, "[] true"},
		{"the same", event{obj: cidr}, "[] false"},
		{"it is deleted", event{cidr, true}, "[] true"},
		{"and again", event{cidr, true}, "[] false"},
		{"an object of another kind", event{obj: &corev1.Pod{}}, "[] false"},
		{"it is deleted, too", event{&corev1.Pod{}, true}, "[] false"},
	}
	for _, step := range steps {
		s.do(step.event)
		if got := taken(s); got != step.want {
			t.Errorf("%s: changes are %s, want %s", step.what, got, step.want)
		}
	}
	if got := taken(s); got != "[] false" {
		t.Errorf("taken twice: %s", got)
	}
	if len(s.slices) != 0 || len(s.owners) != 0 || len(s.cidrs) != 0 || len(s.services) != 1 {
		t.Errorf("left behind: %v %v %v %v", s.slices, s.owners, s.cidrs, s.services)
	}
}

// Take returns a copy, which does not change.
func TestTakeIsACopy(t *testing.T) {
	s := New("n1")
	first := s.Take()
	s.Apply(web())
	if len(first.Services) != 0 {
		t.Errorf("the result of Take changed: %v", first.Services)
	}
}

func TestSlicesMerge(t *testing.T) {
	s := New("n1")
	s.Apply(web())
	other := webSlice("web-2", "10.244.1.2", "10.244.1.1")
	other.Ports[0].Port = new(int32(9090)) // slices may have different target ports
	s.Apply(other)
	s.Apply(webSlice("web-1", "10.244.1.1", "x"))
	want := webRules()
	want.Ports[0].Endpoints = []service.Endpoint{ready("10.244.1.1:8080"), ready("10.244.1.2:9090"),
		ready("10.244.1.1:9090")}
	check(t, s, want, `EndpointSlice web-1: endpoints[1].addresses[0]: "x" is not an IP address`)

	s.Apply(webSlice("web-1")) // without the problem
	want.Ports[0].Endpoints = want.Ports[0].Endpoints[1:]
	check(t, s, want)
	s.Delete(other)
	want.Ports[0].Endpoints = nil
	check(t, s, want)
}

// An invalid part of an object does not affect its other parts, nor other objects.
func TestBadPartsLeaveTheRest(t *testing.T) {
	s := New("n1")
	svc := web()
	svc.Spec.ClusterIPs = append(svc.Spec.ClusterIPs, "x")
	svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Name: "bad"},
		corev1.ServicePort{Name: "dns", Protocol: "UDP", Port: 53})
	broken := web()
	broken.Name = "Broken"
	s.Apply(broken)
	s.Apply(svc)
	s.Apply(webSlice("web-1", "10.244.1.1", "x"))
	bad := webSlice("web-0")
	bad.AddressType = "x"
	s.Apply(bad)
	want := webRules()
	want.Ports[0].Endpoints = []service.Endpoint{ready("10.244.1.1:8080")}
	want.Ports = append(want.Ports, service.Port{Name: "dns", Protocol: service.UDP, Port: 53})
	check(t, s, want,
		`spec.clusterIPs[1]: "x" is not an IP address`,
		"spec.ports[1].port: 0 is not within 1 to 65535",
		`EndpointSlice web-0: addressType: "x" is not IPv4, IPv6 or FQDN`,
		`EndpointSlice web-1: endpoints[1].addresses[0]: "x" is not an IP address`)
}

// Service returns a copy: the caller may change it.
func TestServiceIsACopy(t *testing.T) {
	s := New("n1")
	s.Apply(web())
	s.Apply(webSlice("web-1", "10.244.1.1"))
	first, _ := s.Service(webName())
	first.Ports[0].Port = 1
	first.Ports[0].Endpoints[0].Ready = false
	want := webRules()
	want.Ports[0].Endpoints = []service.Endpoint{ready("10.244.1.1:8080")}
	check(t, s, want)
}

func TestServices(t *testing.T) {
	s := New("n1")
	for _, name := range []service.Name{{Namespace: "b", Name: "a"}, {Namespace: "a", Name: "b"},
		{Namespace: "a", Name: "a"}} {
		svc := web()
		svc.Namespace, svc.Name = name.Namespace, name.Name
		s.Apply(svc)
	}
	s.Apply(webSlice("web-1")) // a slice alone is not a Service
	if diff := cmp.Diff("[a/a a/b b/a]", fmt.Sprint(s.Services())); diff != "" {
		t.Errorf("services (-want +got):\n%s", diff)
	}
}

// The result depends on the last state of each object, and not on the order of the events.
func TestEventOrder(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		final := map[string]event{}
		for i := range 8 {
			final[fmt.Sprint(i)] = randomEvent(rnd, i)
		}
		run := func() *State {
			s := New("n1")
			for range 12 { // history
				s.do(randomEvent(rnd, rnd.IntN(8)))
			}
			for _, i := range rnd.Perm(8) {
				s.do(final[fmt.Sprint(i)])
			}
			return s
		}
		a, b := run(), run()
		if diff := cmp.Diff(dump(a), dump(b), netipComparers()); diff != "" {
			t.Fatalf("seed %d: the state depends on the order of events (-first +second):\n%s", seed, diff)
		}
	}
}

// randomEvent returns an event of the i-th object. There are three Services, four slices and a ServiceCIDR.
func randomEvent(rnd *rand.Rand, i int) event {
	gone := rnd.IntN(4) == 0
	services := []string{"web", "b", "c"}
	switch {
	case i < 3:
		svc := web()
		svc.Name = services[i]
		svc.Spec.Ports[0].Port = int32(rnd.IntN(4)) // 0 is a problem
		if rnd.IntN(5) == 0 {
			svc.Spec.ClusterIP = corev1.ClusterIPNone
		}
		return event{svc, gone}
	case i < 7:
		s := webSlice(fmt.Sprintf("slice-%d", i), "x", fmt.Sprintf("10.244.0.%d", rnd.IntN(3)))
		s.Labels[discoveryv1.LabelServiceName] = services[rnd.IntN(3)]
		return event{s, gone}
	default:
		cidr := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "a"}}
		cidr.Spec.CIDRs = []string{fmt.Sprintf("10.%d.0.0/16", rnd.IntN(3))}
		return event{cidr, gone}
	}
}

// dump returns the result of every method of a State.
func dump(s *State) []any {
	out := []any{s.Services(), s.ServiceCIDRs()}
	for _, name := range []string{"b", "c", "web"} {
		svc, problems := s.Service(service.Name{Namespace: "default", Name: name})
		out = append(out, svc, problems)
	}
	return out
}

// A State is safe for concurrent use. This test is for the race detector.
func TestConcurrentUse(t *testing.T) {
	s := New("n1")
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), 0))
			for range 200 {
				s.do(randomEvent(rnd, rnd.IntN(8)))
				for name := range s.Take().Services {
					s.Service(name)
				}
				s.Services()
				s.ServiceCIDRs()
				s.Node()
			}
		})
	}
	wg.Wait()
	if !slices.IsSortedFunc(s.Services(), service.Name.Compare) {
		t.Errorf("services are not sorted: %v", s.Services())
	}
}

// TestAlive returns to what flows of a Service may continue, from all of its slices, after the Service itself
// is gone.
func TestAlive(t *testing.T) {
	s := New("node-a")
	for name, addr := range map[string]string{"a": "10.244.1.1", "b": "10.244.1.2"} {
		slice := webSlice(name, addr, "10.244.1.9", "10.244.1.10")
		slice.Ports = []discoveryv1.EndpointPort{
			{Name: new("dns"), Protocol: new(corev1.ProtocolUDP), Port: new(int32(53))},
			{Name: new("old"), Protocol: new(corev1.ProtocolUDP), Port: new(int32(54))},
			{Name: new("sip"), Protocol: new(corev1.ProtocolSCTP), Port: new(int32(5060))},
		}
		drained := discoveryv1.EndpointConditions{
			Ready: new(false), Serving: new(false), Terminating: new(true)}
		draining := discoveryv1.EndpointConditions{
			Ready: new(false), Serving: new(true), Terminating: new(true)}
		slice.Endpoints[1].Conditions, slice.Endpoints[2].Conditions = drained, draining
		s.Apply(slice)
	}
	want := map[service.Protocol][]string{
		service.UDP: {"10.244.1.1:53", "10.244.1.1:54", "10.244.1.2:53", "10.244.1.2:54", "10.244.1.10:53",
			"10.244.1.10:54"},
		service.SCTP: {"10.244.1.1:0", "10.244.1.2:0", "10.244.1.9:0", "10.244.1.10:0"},
		service.TCP:  nil,
	}
	for protocol, backends := range want {
		var got []string
		for _, b := range s.Alive(webName(), protocol) {
			got = append(got, b.String())
		}
		if diff := cmp.Diff(backends, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", protocol, diff)
		}
	}
	var draining []string
	for _, b := range s.Draining(webName()) {
		draining = append(draining, b.String())
	}
	slices.Sort(draining)
	draining = slices.Compact(draining) // it is in both slices
	if diff := cmp.Diff([]string{"10.244.1.10:53", "10.244.1.10:54"}, draining); diff != "" {
		t.Errorf("draining (-want +got):\n%s", diff)
	}
	svc := web()
	s.Apply(svc)
	if got, _ := s.Service(webName()); got.Present != nil {
		t.Errorf("without SCTP, present are %v", got.Present)
	}
	svc.Spec.Ports[0].Protocol = corev1.ProtocolSCTP // of a name that no slice has
	s.Apply(svc)
	got, _ := s.Service(webName())
	if diff := cmp.Diff(s.Alive(webName(), service.SCTP), got.Present, cmp.Comparer(
		func(a, b service.Backend) bool { return a == b })); diff != "" {
		t.Errorf("with SCTP, present (-want +got):\n%s", diff)
	}
}
