package desired

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nftproxy/nftproxy/proxier/config"
	"github.com/nftproxy/nftproxy/proxier/state"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

func parseConfig(t *testing.T, args ...string) *config.Config {
	t.Helper()
	options, fs := config.NewOptions(), pflag.NewFlagSet("test", pflag.ContinueOnError)
	options.AddFlags(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	c, _, err := options.Complete()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// newState returns a state with a Node that has internal addresses of both families and pod ranges.
func newState() *state.State {
	s := state.New("node-a")
	s.Apply(&corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "node-a", Labels: map[string]string{corev1.LabelTopologyZone: "zone-1"}},
		Spec:       corev1.NodeSpec{PodCIDRs: []string{"10.244.1.0/24", "fd00:10:244:1::/64"}},
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
		loopback  []netip.Addr
	}{
		{nil, addrs("192.0.2.1", "2001:db8::1"), addrs("192.0.2.1", "2001:db8::1"), nil},
		{[]string{"--bind-address=203.0.113.9"}, addrs("203.0.113.9", "2001:db8::1"),
			addrs("203.0.113.9", "2001:db8::1"), nil},
		// As in kube-proxy, ranges of one family do not restrict the other one.
		{[]string{"--nodeport-addresses=203.0.113.0/24"}, addrs("192.0.2.1", "2001:db8::1"),
			addrs("203.0.113.9", "2001:db8::1"), nil},
		{[]string{"--nodeport-addresses=10.0.0.0/8,fd00::/8"}, addrs("192.0.2.1", "2001:db8::1"), nil, nil},
		{[]string{"--nodeport-addresses=0.0.0.0/0,::/0"}, addrs("192.0.2.1", "2001:db8::1"),
			addrs("192.0.2.1", "203.0.113.9", "2001:db8::1"), nil},
		{[]string{"--nodeport-addresses=127.0.0.0/8,169.254.0.0/16,fe80::/10"}, addrs("192.0.2.1", "2001:db8::1"),
			addrs("169.254.1.1", "fe80::1"), addrs("127.0.0.1")},
	} {
		e := NewEnvironment(parseConfig(t, test.args...), "node-a", newState(), service.Families(), hostAddrs)
		want := service.Node{Name: "node-a", Zone: "zone-1", Addrs: test.primary,
			NodePortAddrs: test.nodePorts, LoopbackAddrs: test.loopback}
		if diff := cmp.Diff(want, e.Node, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("%v (-want +got):\n%s", test.args, diff)
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
		e := NewEnvironment(parseConfig(t, test.args...), "node-a", newState(), service.Families(), nil)
		if diff := cmp.Diff(test.want, e.Config.PodTraffic, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
			t.Errorf("%v (-want +got):\n%s", test.args, diff)
		}
	}
}
