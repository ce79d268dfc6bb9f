package state

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func nodeObject(name string, addresses ...corev1.NodeAddress) *corev1.Node {
	obj := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	obj.Status.Addresses = addresses
	return obj
}

func internal(a string) corev1.NodeAddress {
	return corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a}
}

func external(a string) corev1.NodeAddress {
	return corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: a}
}

func TestNode(t *testing.T) {
	cidrs := func(single string, list ...string) *corev1.Node {
		n := nodeObject("n1")
		n.Spec.PodCIDR, n.Spec.PodCIDRs = single, list
		return n
	}
	zone := nodeObject("n1")
	zone.Labels = map[string]string{"topology.kubernetes.io/zone": "a"}
	tests := []struct {
		name string
		obj  *corev1.Node
		want Node
	}{
		{"empty", nodeObject("n1"), Node{}},
		{"zone", zone, Node{Zone: "a"}},
		{"another node", nodeObject("n2", internal("192.0.2.1")), Node{}},
		{"one address", nodeObject("n1", internal("192.0.2.1")),
			Node{Addrs: addrs("192.0.2.1"), Primary: addrs("192.0.2.1")}},
		{"both families", nodeObject("n1", internal("2001:db8::1"), internal("192.0.2.1")),
			Node{Addrs: addrs("2001:db8::1 192.0.2.1"), Primary: addrs("2001:db8::1 192.0.2.1")}},
		{"internal before external, first of its family", nodeObject("n1",
			external("203.0.113.1"), external("2001:db8::9"), internal("192.0.2.2"), internal("192.0.2.1")),
			Node{
				Addrs:   addrs("192.0.2.2 192.0.2.1 203.0.113.1 2001:db8::9"),
				Primary: addrs("192.0.2.2 2001:db8::9"),
			}},
		{"external only", nodeObject("n1", external("203.0.113.1")),
			Node{Addrs: addrs("203.0.113.1"), Primary: addrs("203.0.113.1")}},
		{"the same address twice",
			nodeObject("n1", internal("192.0.2.1"), external("192.0.2.1"), internal("::ffff:192.0.2.1")),
			Node{Addrs: addrs("192.0.2.1"), Primary: addrs("192.0.2.1")}},
		{"other types and invalid addresses", nodeObject("n1",
			corev1.NodeAddress{Type: corev1.NodeHostName, Address: "192.0.2.9"},
			internal("x"), internal(""), internal("127.0.0.1"), internal("192.0.2.1")),
			Node{Addrs: addrs("192.0.2.1"), Primary: addrs("192.0.2.1")}},
		{"podCIDRs", cidrs("10.244.0.0/24", "10.244.0.0/24", "fd00::/64"),
			Node{PodCIDRs: prefixes("10.244.0.0/24 fd00::/64")}},
		{"podCIDR only", cidrs("10.244.0.0/24"), Node{PodCIDRs: prefixes("10.244.0.0/24")}},
		{"bad podCIDRs", cidrs("", "x", "", "10.244.0.7/24"), Node{PodCIDRs: prefixes("10.244.0.0/24")}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := New("n1")
			s.Apply(tt.obj)
			if diff := cmp.Diff(tt.want, s.Node(), netipComparers()); diff != "" {
				t.Errorf("node (-want +got):\n%s", diff)
			}
			changed := !cmp.Equal(tt.want, Node{}, netipComparers())
			if got := s.Take().Environment; got != changed {
				t.Errorf("environment changed: %t, want %t", got, changed)
			}
		})
	}
}

// Only fields that the rules depend on are a change: the heartbeat of a Node is not.
func TestNodeChanges(t *testing.T) {
	with := func(change func(*corev1.Node)) *corev1.Node {
		n := nodeObject("n1", internal("192.0.2.1"), external("203.0.113.1"))
		n.Labels = map[string]string{"topology.kubernetes.io/zone": "a"}
		n.Spec.PodCIDRs = []string{"10.244.0.0/24"}
		change(n)
		return n
	}
	s := New("n1")
	s.Apply(with(func(*corev1.Node) {}))
	s.Take()
	steps := []struct {
		what   string
		change func(*corev1.Node)
		want   bool
	}{
		{"nothing", func(*corev1.Node) {}, false},
		{"heartbeat", func(n *corev1.Node) {
			n.Labels["x"], n.ResourceVersion = "y", "2"
			n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady}}
		}, false},
		{"order of types", func(n *corev1.Node) {
			n.Status.Addresses[0], n.Status.Addresses[1] = n.Status.Addresses[1], n.Status.Addresses[0]
		}, false},
		{"zone", func(n *corev1.Node) { n.Labels = nil }, true},
		{"zone back", func(*corev1.Node) {}, true},
		{"address", func(n *corev1.Node) { n.Status.Addresses[0].Address = "192.0.2.2" }, true},
		{"address back", func(*corev1.Node) {}, true},
		{"one address less", func(n *corev1.Node) { n.Status.Addresses = n.Status.Addresses[:1] }, true},
		{"address back", func(*corev1.Node) {}, true},
		{"the primary address", func(n *corev1.Node) {
			n.Status.Addresses[0].Type = corev1.NodeExternalIP
			n.Status.Addresses[1].Type = corev1.NodeInternalIP
		}, true},
		{"the primary address back", func(*corev1.Node) {}, true},
		{"podCIDR", func(n *corev1.Node) { n.Spec.PodCIDRs = append(n.Spec.PodCIDRs, "fd00::/64") }, true},
	}
	for _, step := range steps {
		s.Apply(with(step.change))
		if got := s.Take().Environment; got != step.want {
			t.Errorf("%s: environment changed: %t, want %t", step.what, got, step.want)
		}
	}
	before := s.Node()
	s.Delete(with(func(*corev1.Node) {}))
	if diff := cmp.Diff(before, s.Node(), netipComparers()); diff != "" || s.Take().Environment {
		t.Errorf("the addresses of a deleted Node remain (-want +got):\n%s", diff)
	}
}

// TestNodeKeepsAddresses takes all addresses away, which changes nothing, and some, which is a change.
func TestNodeKeepsAddresses(t *testing.T) {
	s := New("n1")
	two := []corev1.NodeAddress{internal("192.0.2.1"), internal("2001:db8::1")}
	for i, step := range []struct {
		addresses []corev1.NodeAddress
		want      string
		kept      bool
		changed   bool
	}{
		{nil, "", false, false},
		{two, "192.0.2.1 2001:db8::1", false, true},
		{nil, "192.0.2.1 2001:db8::1", true, false},
		{[]corev1.NodeAddress{internal("nonsense")}, "192.0.2.1 2001:db8::1", true, false},
		{two, "192.0.2.1 2001:db8::1", false, false},
		{two[1:], "2001:db8::1", false, true},
		{nil, "2001:db8::1", true, false},
		{two[:1], "192.0.2.1", false, true},
	} {
		s.Apply(nodeObject("n1", step.addresses...))
		want := Node{Addrs: addrs(step.want), Primary: addrs(step.want), Kept: step.kept}
		if diff := cmp.Diff(want, s.Node(), netipComparers()); diff != "" {
			t.Errorf("step %d (-want +got):\n%s", i, diff)
		}
		if got := s.Take().Environment; got != step.changed {
			t.Errorf("step %d: environment changed: %t, want %t", i, got, step.changed)
		}
	}
}

func TestServiceCIDRs(t *testing.T) {
	cidr := func(name string, cidrs ...string) *networkingv1.ServiceCIDR {
		obj := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: name}}
		obj.Spec.CIDRs = cidrs
		return obj
	}
	const all = "10.96.0.0/16 10.97.0.0/16 fd00::/112"
	s := New("n1")
	steps := []struct {
		what string
		event
		want        string
		environment bool
	}{
		{"both families", event{obj: cidr("b", "fd00::/112", "10.97.0.0/16")}, "10.97.0.0/16 fd00::/112",
			true},
		{"a second one", event{obj: cidr("a", "10.96.0.0/16", "10.97.0.0/16")}, all, true},
		{"the same", event{obj: cidr("a", "10.96.0.0/16", "10.97.0.0/16")}, all, false},
		{"invalid ones are left out", event{obj: cidr("a", "x", "10.96.0.9/16", "")}, all, true},
		{"only invalid ones", event{obj: cidr("a", "x")}, "10.97.0.0/16 fd00::/112", true},
		{"one is deleted", event{cidr("b"), true}, "", true},
		{"an unknown one is deleted", event{cidr("z"), true}, "", false},
		{"an empty one comes", event{obj: cidr("z")}, "", false},
	}
	for _, step := range steps {
		s.do(step.event)
		if diff := cmp.Diff(prefixes(step.want), s.ServiceCIDRs(), netipComparers()); diff != "" {
			t.Errorf("%s: CIDRs (-want +got):\n%s", step.what, diff)
		}
		if got := s.Take().Environment; got != step.environment {
			t.Errorf("%s: environment changed: %t, want %t", step.what, got, step.environment)
		}
	}
}
