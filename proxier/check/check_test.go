package check

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nftproxy/nftproxy/internal/configtest"
	"github.com/nftproxy/nftproxy/internal/lab"
)

// checkIn returns the findings about a namespace, a line for each.
func checkIn(t *testing.T, ns *lab.Namespace, nodes NodeFunc, args ...string) []string {
	t.Helper()
	c := configtest.Parse(t, append(args, "--metrics-bind-address=127.0.0.1:1", "--hostname-override=node-a")...)
	var findings []Finding
	err := ns.Do(func() (err error) {
		findings, err = Node(t.Context(), c, nil, nodes)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range findings {
		if f.Subject != "kernel" && f.Subject != "conntrack" { // these depend on the machine
			out = append(out, fmt.Sprintf("%s %s: %s", f.State, f.Subject, f.Detail))
		}
	}
	return out
}

// otherPrograms are tables of nftproxy, kube-proxy and other programs.
const otherPrograms = `
table ip nftproxy { chain services { }; }
table ip kube-proxy { }
table ip nat { chain FLANNEL-POSTRTG { }; chain DOCKER { }; }
table ip filter {
	chain FORWARD { type filter hook forward priority 0; policy drop; }
	chain ufw-before-input { }
}
table inet firewalld { }
table inet vpn { chain pre { type filter hook prerouting priority mangle; meta mark set 0x4000; }; }
`

// TestCheckLab checks the node of a lab, which is ready, and then with rules and interfaces of other
// programs. The check does not change the ruleset.
func TestCheckLab(t *testing.T) {
	l := newLab(t, lab.Options{Bridge: true})
	args := []string{"--source=" + migrationDir + "/objects.yaml",
		"--detect-local-mode=BridgeInterface", "--pod-bridge-interface=cni0"}
	want := []string{
		"ok nftables: the kernel supports everything that the rules need",
		"ok tables: nftproxy's tables do not exist yet",
		"ok forwarding: the node forwards IPv4 and IPv6",
		"ok nodePorts: served on 192.0.2.1, 2001:db8::1 (nodePortAddresses: primary)",
		"ok pods' traffic: recognised by the interface it arrives on, cni0 (detectLocalMode: BridgeInterface)",
		"ok kube-proxy: does not run on this node and has no rules here",
		"ok other rule sets: none that nftproxy recognises",
	}
	if diff := cmp.Diff(want, checkIn(t, l.Node(), nil, args...)); diff != "" {
		t.Errorf("an empty node (-want +got):\n%s", diff)
	}
	nftIn(t, l.Node(), migrationFile(t, "iptables.nft")+otherPrograms, "-f", "-")
	addBridge(t, l.Node(), "kube-ipvs0")
	before := nftIn(t, l.Node(), "", "-s", "list", "ruleset")
	want = []string{
		"ok nftables: the kernel supports everything that the rules need",
		"ok tables: nftproxy's tables exist",
		"note forwarding: a chain of table ip filter drops forwarded packets unless a rule in it accepts them",
		"note mark: chain pre of table inet vpn sets the bit of the mark by which nftproxy masquerades: " +
			"pods may see this node as their client",
		"ok nodePorts: served on 192.0.2.1, 2001:db8::1 (nodePortAddresses: primary)",
		"ok pods' traffic: recognised by the interface it arrives on, cni0 (detectLocalMode: BridgeInterface)",
		"problem kube-proxy: has rules in nftables: table ip kube-proxy, " +
			"chains KUBE-* of table ip mangle (1), chains KUBE-* of table ip filter (5), " +
			"chains KUBE-* of table ip nat (13), chains KUBE-* of table ip6 mangle (1), " +
			"chains KUBE-* of table ip6 filter (6), chains KUBE-* of table ip6 nat (13)",
		"problem kube-proxy: has interface kube-ipvs0, 0 virtual servers of IPVS",
	}
	got := checkIn(t, l.Node(), nil, args...)
	if diff := cmp.Diff(want, got[:min(len(want), len(got))]); diff != "" {
		t.Fatalf("a full node (-want +got):\n%s", diff)
	}
	var names []string
	for _, line := range got[len(want):] {
		name, _, _ := strings.Cut(line, ":")
		names = append(names, name)
	}
	if diff := cmp.Diff([]string{"note firewalld", "note ufw", "ok Docker", "ok flannel"}, names); diff != "" {
		t.Errorf("neighbours (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before, nftIn(t, l.Node(), "", "-s", "list", "ruleset")); diff != "" {
		t.Errorf("the check changed the ruleset (-want +got):\n%s", diff)
	}
}

func addBridge(t *testing.T, ns *lab.Namespace, name string) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	if err := ns.Do(func() error { return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}) }); err != nil {
		t.Fatal(err)
	}
}

// TestCheckNotReady checks a namespace that does not forward, with a Node object from an API server and
// without.
func TestCheckNotReady(t *testing.T) {
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "node-a"},
		Spec:       corev1.NodeSpec{PodCIDRs: []string{"10.244.1.0/24"}},
		Status: corev1.NodeStatus{
			Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.7"}},
		},
	}
	nodes := func(context.Context, string) (*corev1.Node, error) { return node, nil }
	want := []string{
		"ok nftables: the kernel supports everything that the rules need",
		"ok tables: nftproxy's tables do not exist yet",
		"problem forwarding: sysctl net.ipv4.ip_forward is 0: " +
			"the node does not forward packets to pods and to endpoints on other nodes",
		"ok nodePorts: served on 192.0.2.7 (nodePortAddresses: primary)",
		"ok pods' traffic: recognised by its source address, in 10.244.1.0/24 (detectLocalMode: NodeCIDR)",
		"ok kube-proxy: does not run on this node and has no rules here",
		"ok other rule sets: none that nftproxy recognises",
	}
	ns := lab.TestNamespace(t)
	if diff := cmp.Diff(want, checkIn(t, ns, nodes, "--detect-local-mode=NodeCIDR")); diff != "" {
		t.Errorf("with a Node object (-want +got):\n%s", diff)
	}
	want[3] = "note nodePorts: served on the primary addresses of the Node object " +
		"(nodePortAddresses: primary); the Node object cannot be read: no API server is configured"
	want[4] = "note pods' traffic: not recognised, because no pod range is known " +
		"(detectLocalMode: ClusterCIDR): " +
		"nftproxy does not masquerade connections to ClusterIPs from outside the cluster"
	if diff := cmp.Diff(want, checkIn(t, ns, nil)); diff != "" {
		t.Errorf("without a Node object (-want +got):\n%s", diff)
	}
}
