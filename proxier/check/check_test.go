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

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/preflight"
)

// checkIn returns the findings about a namespace, one a line.
func checkIn(t *testing.T, ns *lab.Namespace, nodes NodeFunc, args ...string) []string {
	t.Helper()
	c := parseConfig(t, append(args, "--metrics-bind-address=127.0.0.1:1", "--hostname-override=node-a")...)
	var findings []preflight.Finding
	err := ns.Do(func() (err error) {
		findings, err = Check(t.Context(), c, nodes)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range findings {
		if f.Subject != "kernel" && f.Subject != "conntrack" { // of the machine
			lines = append(lines, fmt.Sprintf("%s %s: %s", f.State, f.Subject, f.Detail))
		}
	}
	return lines
}

// TestCheckLab checks the node of a lab, which is fit, and then one with everything
// there that others may have put into the kernel. It leaves no trace.
func TestCheckLab(t *testing.T) {
	l := newLab(t, lab.Options{Bridge: true})
	args := []string{"--source=" + migrationDir + "/objects.yaml", "--detect-local-mode=BridgeInterface", "--pod-bridge-interface=cni0"}
	want := []string{
		"ok nftables: the kernel has all that the rules need",
		"ok tables: nftproxy's tables are not there yet",
		"ok forwarding: the node forwards IPv4 and IPv6",
		"ok nodePorts: on 192.0.2.1, 2001:db8::1 (nodePortAddresses: primary)",
		"ok pods' traffic: known by the interface it arrives on, cni0 (detectLocalMode: BridgeInterface)",
		"ok kube-proxy: none runs here, and it has left nothing",
		"ok other rule sets: none of those that nftproxy knows",
	}
	if diff := cmp.Diff(want, checkIn(t, l.Node(), nil, args...)); diff != "" {
		t.Errorf("an empty node (-want +got):\n%s", diff)
	}
	nftIn(t, l.Node(), migrationFile(t, "iptables.nft")+`
table ip nftproxy { chain services { }; }
table ip kube-proxy { }
table ip nat { chain FLANNEL-POSTRTG { }; chain DOCKER { }; }
table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; chain ufw-before-input { }; }
table inet firewalld { }
`, "-f", "-")
	addBridge(t, l.Node(), "kube-ipvs0")
	before := nftIn(t, l.Node(), "", "-s", "list", "ruleset")
	want = []string{
		"ok nftables: the kernel has all that the rules need",
		"ok tables: nftproxy's tables are there",
		"note forwarding: a chain of table ip filter drops forwarded packets unless a rule in it accepts them",
		"ok nodePorts: on 192.0.2.1, 2001:db8::1 (nodePortAddresses: primary)",
		"ok pods' traffic: known by the interface it arrives on, cni0 (detectLocalMode: BridgeInterface)",
		"problem kube-proxy: its rules are there: table ip kube-proxy, chains KUBE-* of table ip mangle (1), " +
			"chains KUBE-* of table ip filter (5), chains KUBE-* of table ip nat (13), chains KUBE-* of table ip6 mangle (1), " +
			"chains KUBE-* of table ip6 filter (6), chains KUBE-* of table ip6 nat (13)",
		"problem kube-proxy: it has left interface kube-ipvs0, 0 virtual servers of IPVS",
	}
	got := checkIn(t, l.Node(), nil, args...)
	if diff := cmp.Diff(want, got[:len(want)]); diff != "" {
		t.Errorf("a full node (-want +got):\n%s", diff)
	}
	var neighbours []string
	for _, line := range got[len(want):] {
		name, _, _ := strings.Cut(line, ":")
		neighbours = append(neighbours, name)
	}
	if diff := cmp.Diff([]string{"note firewalld", "note ufw", "ok Docker", "ok flannel"}, neighbours); diff != "" {
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

// A namespace that does not forward, and a Node object from an API server.
func TestCheckUnfit(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a"}, Spec: corev1.NodeSpec{PodCIDRs: []string{"10.244.1.0/24"}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.7"}}}}
	want := []string{
		"ok nftables: the kernel has all that the rules need",
		"ok tables: nftproxy's tables are not there yet",
		"problem forwarding: sysctl net.ipv4.ip_forward is 0: connections to endpoints on other nodes and to pods are not forwarded",
		"ok nodePorts: on 192.0.2.7 (nodePortAddresses: primary)",
		"ok pods' traffic: known by its source address, in 10.244.1.0/24 (detectLocalMode: NodeCIDR)",
		"ok kube-proxy: none runs here, and it has left nothing",
		"ok other rule sets: none of those that nftproxy knows",
	}
	ns := newNamespace(t)
	if diff := cmp.Diff(want, checkIn(t, ns, func(context.Context, string) (*corev1.Node, error) { return node, nil }, "--detect-local-mode=NodeCIDR")); diff != "" {
		t.Errorf("with a Node object (-want +got):\n%s", diff)
	}
	lines := strings.Join(checkIn(t, ns, nil), "\n")
	for _, want := range []string{"which is not at hand: no API server is configured", "cannot be told from other traffic"} {
		if !strings.Contains(lines, want) {
			t.Errorf("without a Node object, want %q in\n%s", want, lines)
		}
	}
}
