package desired

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nftproxy/nftproxy/internal/configtest"
	"github.com/nftproxy/nftproxy/proxier/state"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// newState returns a state with a Node that has internal addresses of both families and pod ranges.
func newState() *state.State {
	s := state.New("node-a")
	s.Apply(&corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: "node-a", Labels: map[string]string{corev1.LabelTopologyZone: "zone-1"}},
		Spec: corev1.NodeSpec{PodCIDRs: []string{"10.244.1.0/24", "fd00:10:244:1::/64"}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: "192.0.2.1"},
			{Type: corev1.NodeInternalIP, Address: "2001:db8::1"},
		}},
	})
	return s
}

func addrs(texts ...string) (out []netip.Addr) {
	for _, text := range texts {
		out = append(out, netip.MustParseAddr(text))
	}
	return out
}

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

func TestNodeAddresses(t *testing.T) {
	hostAddrs := addrs("127.0.0.1", "169.254.1.1", "192.0.2.1", "203.0.113.9", "::1", "2001:db8::1", "fe80::1")
	for _, test := range []struct {
		args      []string
		primary   []netip.Addr
		nodePorts []netip.Addr
		checks    []netip.Addr
		loopback  []netip.Addr
	}{
		{nil, addrs("192.0.2.1", "2001:db8::1"), addrs("192.0.2.1", "2001:db8::1"),
			addrs("192.0.2.1", "2001:db8::1"), nil},
		{[]string{"--bind-address=203.0.113.9"}, addrs("203.0.113.9", "2001:db8::1"),
			addrs("203.0.113.9", "2001:db8::1"), addrs("203.0.113.9", "2001:db8::1"), nil},
		// As in kube-proxy, ranges of one family do not restrict the other one.
		{[]string{"--nodeport-addresses=203.0.113.0/24"}, addrs("192.0.2.1", "2001:db8::1"),
			addrs("203.0.113.9", "2001:db8::1"), addrs("203.0.113.9", "::"), nil},
		{[]string{"--nodeport-addresses=10.0.0.0/8,fd00::/8"}, addrs("192.0.2.1", "2001:db8::1"), nil, nil, nil},
		{[]string{"--nodeport-addresses=0.0.0.0/0,::/0"}, addrs("192.0.2.1", "2001:db8::1"),
			addrs("192.0.2.1", "203.0.113.9", "2001:db8::1"), addrs("0.0.0.0", "::"), nil},
		{[]string{"--nodeport-addresses=127.0.0.0/8,169.254.0.0/16,fe80::/10"}, addrs("192.0.2.1", "2001:db8::1"),
			addrs("169.254.1.1", "fe80::1"), addrs("127.0.0.1", "169.254.1.1"), addrs("127.0.0.1")},
		{[]string{"--nodeport-addresses=primary,localhost"}, addrs("192.0.2.1", "2001:db8::1"),
			addrs("192.0.2.1", "2001:db8::1"), addrs("127.0.0.1", "192.0.2.1", "::1", "2001:db8::1"),
			addrs("127.0.0.1", "::1")},
		{[]string{"--nodeport-addresses=primary,0.0.0.0/0"}, addrs("192.0.2.1", "2001:db8::1"),
			addrs("192.0.2.1", "203.0.113.9", "2001:db8::1"), addrs("0.0.0.0", "2001:db8::1"), nil},
	} {
		e := NewEnvironment(configtest.Parse(t, test.args...), "node-a", newState(), service.Families(), hostAddrs)
		want := service.Node{Name: "node-a", Zone: "zone-1", Addrs: test.primary,
			NodePortAddrs: test.nodePorts, LoopbackAddrs: test.loopback}
		options := cmp.Options{cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{}),
			cmpopts.IgnoreFields(service.Node{}, "Reserved")}
		if diff := cmp.Diff(want, e.Node, options); diff != "" {
			t.Errorf("%v (-want +got):\n%s", test.args, diff)
		}
		if !slices.Equal(test.checks, e.HealthCheckAddrs) {
			t.Errorf("%v: health checks on %s, want %s", test.args, e.HealthCheckAddrs, test.checks)
		}
		if e.Unrestricted != nil {
			t.Errorf("%v: the Node lacks addresses of %v, want none", test.args, e.Unrestricted)
		}
	}
}

// TestPrimaryWithoutFamily takes addresses from the Node. As in kube-proxy, "primary" does not restrict a
// family of which the Node has no address; a Node without any has no nodePorts.
func TestPrimaryWithoutFamily(t *testing.T) {
	hostAddrs := addrs("127.0.0.1", "192.0.2.1", "203.0.113.9", "::1", "2001:db8::1", "fe80::1")
	both, only4 := service.Families(), []service.Family{service.IPv4}
	type families = []service.Family
	for _, test := range []struct {
		node      string
		args      []string
		families  families
		nodePorts []netip.Addr
		checks    []netip.Addr
		lacks     families
	}{
		{"192.0.2.1", nil, both, addrs("192.0.2.1", "2001:db8::1"), addrs("192.0.2.1", "::"),
			families{service.IPv6}},
		{"2001:db8::1", nil, both, addrs("192.0.2.1", "203.0.113.9", "2001:db8::1"),
			addrs("0.0.0.0", "2001:db8::1"), families{service.IPv4}},
		{"", nil, both, nil, nil, nil},
		{"192.0.2.1", nil, only4, addrs("192.0.2.1"), addrs("192.0.2.1"), nil},
		{"192.0.2.1", []string{"--nodeport-addresses=primary,localhost"}, both, addrs("192.0.2.1"),
			addrs("127.0.0.1", "192.0.2.1", "::1"), nil},
		{"192.0.2.1", []string{"--nodeport-addresses=primary,fd00::/8"}, both, addrs("192.0.2.1"),
			addrs("192.0.2.1"), nil},
		{"192.0.2.1", []string{"--bind-address=2001:db8::1"}, both, addrs("192.0.2.1", "2001:db8::1"),
			addrs("192.0.2.1", "2001:db8::1"), nil},
		{"2001:db8::1", []string{"--bind-address=127.0.0.1"}, both,
			addrs("192.0.2.1", "203.0.113.9", "2001:db8::1"), addrs("0.0.0.0", "2001:db8::1"),
			families{service.IPv4}},
	} {
		s := state.New("node-a")
		s.Apply(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a"}, Status: corev1.NodeStatus{
			Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: test.node}}}})
		e := NewEnvironment(configtest.Parse(t, test.args...), "node-a", s, test.families, hostAddrs)
		name := fmt.Sprintf("Node with %q, %v, %v", test.node, test.args, test.families)
		if !slices.Equal(test.nodePorts, e.Node.NodePortAddrs) {
			t.Errorf("%s: nodePorts on %s, want %s", name, e.Node.NodePortAddrs, test.nodePorts)
		}
		if !slices.Equal(test.checks, e.HealthCheckAddrs) {
			t.Errorf("%s: health checks on %s, want %s", name, e.HealthCheckAddrs, test.checks)
		}
		if !slices.Equal(test.lacks, e.Unrestricted) {
			t.Errorf("%s: the Node lacks addresses of %v, want %v", name, e.Unrestricted, test.lacks)
		}
	}
}

func TestPodTraffic(t *testing.T) {
	for _, test := range []struct {
		args []string
		want rules.PodTraffic
	}{
		{nil, rules.PodTraffic{}},
		{[]string{"--cluster-cidr=10.244.0.0/16"}, rules.PodTraffic{CIDRs: prefixes("10.244.0.0/16")}},
		{[]string{"--detect-local-mode=NodeCIDR", "--cluster-cidr=10.244.0.0/16"},
			rules.PodTraffic{CIDRs: prefixes("10.244.1.0/24", "fd00:10:244:1::/64")}},
		{[]string{"--detect-local-mode=BridgeInterface", "--pod-bridge-interface=cni0"},
			rules.PodTraffic{Interface: "cni0"}},
		{[]string{"--detect-local-mode=InterfaceNamePrefix", "--pod-interface-name-prefix=veth"},
			rules.PodTraffic{Interface: "veth*"}},
	} {
		e := NewEnvironment(configtest.Parse(t, test.args...), "node-a", newState(), service.Families(), nil)
		if diff := cmp.Diff(test.want, e.Config.PodTraffic, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
			t.Errorf("%v (-want +got):\n%s", test.args, diff)
		}
	}
}
