package check

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/proxier/conntrack"
	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/proxier/takeover"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestGoldenForms(t *testing.T) {
	findings := []Finding{
		{"kernel", OK, "Linux 6.18.0", ""},
		{"nftables", Problem, "the kernel lacks ip numgen random",
			"the rules need CONFIG_NFT_NUMGEN (module nft_numgen) <6.18>"},
		{"pods' traffic", Note, "not recognised", "set clusterCIDR"},
	}
	type write = func(io.Writer, []Finding) error
	for file, write := range map[string]write{"report.txt": WriteText, "report.json": WriteJSON} {
		var got strings.Builder
		if err := write(&got, findings); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", file)
		if *update {
			if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", file, diff)
		}
	}
	if Fit(findings) || !Fit(findings[2:]) {
		t.Error("a node is fit unless a finding is a problem")
	}
}

// good returns the facts of a node without problems.
func good() facts {
	f := facts{
		host:       hostFacts{kernel: "6.18.0", interfaces: []string{"cni0", "eth0", "lo", "veth1234"}},
		families:   service.Families(),
		localMode:  "ClusterCIDR",
		podTraffic: rules.PodTraffic{CIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}},
		nodePorts: nodePortFacts{
			configured: "primary", primary: true, addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		},
	}
	f.host.flows.Most, f.host.flows.Flows = 1000, 900
	return f
}

func TestReportOfGoodNode(t *testing.T) {
	f := good()
	want := []string{
		"ok kernel: Linux 6.18.0",
		"ok nftables: the kernel supports everything that the rules need",
		"ok tables: nftproxy's tables do not exist yet",
		"ok forwarding: the node forwards IPv4 and IPv6",
		"ok conntrack: 900 of at most 1000 flows",
		"ok nodePorts: served on 192.0.2.1 (nodePortAddresses: primary)",
		"ok pods' traffic: recognised by its source address, in 10.244.0.0/16 (detectLocalMode: ClusterCIDR)",
		"ok kube-proxy: does not run on this node and has no rules here",
		"ok other rule sets: none that nftproxy recognises",
	}
	if diff := cmp.Diff(want, lines(report(&f))); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
}

// lines returns a line for each finding, with the advice if there is any.
func lines(findings []Finding) (out []string) {
	for _, f := range findings {
		line := fmt.Sprintf("%s %s: %s", f.State, f.Subject, f.Detail)
		if f.Advice != "" {
			line += " -> " + f.Advice
		}
		out = append(out, line)
	}
	return out
}

// reportCase is a change to the facts of the good node, and the finding that it makes.
type reportCase struct {
	change func(*facts)
	want   string
}

func TestReport(t *testing.T) {
	for _, test := range slices.Concat(kernelCases(), configCases(), kubeProxyCases()) {
		f := good()
		test.change(&f)
		if got := lines(report(&f)); !slices.Contains(got, test.want) {
			t.Errorf("want %q in\n  %s", test.want, strings.Join(got, "\n  "))
		}
	}
}

func kernelCases() []reportCase {
	drops := kernel.TableChain{Name: "FORWARD", Hook: &nftables.Hook{Name: "forward"}, Drop: true}
	return []reportCase{
		{func(f *facts) { f.refused = errors.New("permission denied") },
			"problem nftables: cannot read nftables: permission denied -> " +
				"run this as root or with CAP_NET_ADMIN, in the network namespace of the node"},
		{func(f *facts) {
			f.missing = []kernel.Missing{
				{Family: service.IPv4, Feature: "numgen", Needs: "Linux 4.9", Err: errors.New("no such file")}}
		}, "problem nftables: the kernel lacks ip numgen (no such file) -> the rules need Linux 4.9"},
		{func(f *facts) {
			f.missing = []kernel.Missing{{Family: service.IPv4, Needs: "CONFIG_X", Err: errors.New("not supported")}}
		}, "problem nftables: the kernel lacks ip tables (not supported) -> the rules need CONFIG_X"},
		{func(f *facts) {
			f.missing = []kernel.Missing{{Family: service.IPv4, Feature: "counter in map services", Needs: "CONFIG_X",
				Err: errors.New("no such file"), Optional: true}}
		}, "note nftables: the kernel lacks ip counter in map services: nftproxy counts no connections -> " +
			"for the metric nftproxy_service_connections_total use a kernel with CONFIG_X"},
		{func(f *facts) { f.noIPv6 = true },
			"note nftables: the kernel does not support IPv6: nftproxy programs IPv4 only"},
		{func(f *facts) { f.programmed = true }, "ok tables: nftproxy's tables exist"},
		{func(f *facts) { f.notForwarding = []string{"net.ipv4.ip_forward"} },
			"problem forwarding: sysctl net.ipv4.ip_forward is 0: " +
				"the node does not forward packets to pods and to endpoints on other nodes -> set it to 1"},
		{func(f *facts) { f.families = []service.Family{service.IPv6} }, "ok forwarding: the node forwards IPv6"},
		{func(f *facts) {
			f.tables = []kernel.Table{{Family: "ip", Name: "filter", Chains: []kernel.TableChain{drops}}}
		},
			"note forwarding: a chain of table ip filter drops forwarded packets " +
				"unless a rule in it accepts them -> check that the CNI plugin accepts the pods' " +
				"traffic there, or set its policy to accept"},
		{func(f *facts) { f.marks = []kernel.MarkRule{{Family: "inet", Table: "vpn", Chain: "pre", Sets: true}} },
			"note mark: chain pre of table inet vpn sets the bit of the mark by which nftproxy masquerades: " +
				"pods may see this node as their client -> " +
				"give that program another bit, or nftproxy with masqueradeBit"},
		{func(f *facts) { f.marks = []kernel.MarkRule{{Family: "ip", Table: "vpn", Chain: "fwd"}} },
			"note mark: chain fwd of table ip vpn clears the bit of the mark by which nftproxy masquerades: " +
				"replies may go past this node -> give that program another bit, or nftproxy with masqueradeBit"},
		{func(f *facts) { f.host.flows.Flows = 901 },
			"problem conntrack: 901 of at most 1000 flows: " +
				"when the table is full, the kernel drops new connections -> " +
				"raise conntrack.min or conntrack.maxPerCore in the configuration"},
		{func(f *facts) { f.host.losses = conntrack.Losses{Dropped: 5, Insert: 2} },
			"note conntrack: 900 of at most 1000 flows; 5 packets of new connections were dropped since the boot, " +
				"2 of them because another flow has the same addresses and ports -> a few are normal; " +
				"if the numbers grow, the table has been full, or masquerading has no free port"},
		{func(f *facts) { f.host.flows.Most = 0 }, "ok conntrack: not in use yet"},
	}
}

func configCases() []reportCase {
	localMode := func(mode string, p rules.PodTraffic) func(*facts) {
		return func(f *facts) { f.localMode, f.podTraffic = mode, p }
	}
	return []reportCase{
		{func(f *facts) { f.nodePorts.addrs, f.nodePorts.nodeUnknown = nil, "no API server" },
			"note nodePorts: served on the primary addresses of the Node object (nodePortAddresses: primary); " +
				"the Node object cannot be read: no API server -> " +
				"use a kubeconfig that may list nodes, or add the Node object to --source"},
		{func(f *facts) {
			f.nodePorts.configured, f.nodePorts.nodeUnknown = "primary,192.0.2.0/24", "no API server"
		},
			"note nodePorts: served on 192.0.2.1, the primary addresses of the Node object " +
				"(nodePortAddresses: primary,192.0.2.0/24); the Node object cannot be read: no API server -> " +
				"use a kubeconfig that may list nodes, or add the Node object to --source"},
		{func(f *facts) { f.nodePorts = nodePortFacts{configured: "10.9.0.0/16"} },
			"note nodePorts: not served: the node has no address in the configured ranges " +
				"(nodePortAddresses: 10.9.0.0/16) -> change nodePortAddresses if the cluster uses nodePorts"},
		{localMode("BridgeInterface", rules.PodTraffic{Interface: "cni0"}),
			"ok pods' traffic: recognised by the interface it arrives on, cni0 (detectLocalMode: BridgeInterface)"},
		{localMode("InterfaceNamePrefix", rules.PodTraffic{Interface: "veth*"}),
			"ok pods' traffic: recognised by the interface it arrives on, veth* " +
				"(detectLocalMode: InterfaceNamePrefix)"},
		{localMode("InterfaceNamePrefix", rules.PodTraffic{Interface: "eni*"}),
			"note pods' traffic: recognised by the interface it arrives on, eni* " +
				"(detectLocalMode: InterfaceNamePrefix); the node does not have such an interface -> " +
				"check the name, unless no pod has run on this node yet"},
		{localMode("NodeCIDR", rules.PodTraffic{}),
			"note pods' traffic: not recognised, because no pod range is known (detectLocalMode: NodeCIDR): " +
				"nftproxy does not masquerade connections to ClusterIPs from outside the cluster -> " +
				"set clusterCIDR (--cluster-cidr), or for NodeCIDR provide a Node object with podCIDRs"},
	}
}

func kubeProxyCases() []reportCase {
	takeOver := " -> run nftproxy with --take-over, which removes them when kube-proxy has ended"
	return []reportCase{
		{func(f *facts) { f.kubeProxy.mode = "ipvs" },
			"note kube-proxy: runs on this node, in mode ipvs -> remove it from this node when nftproxy runs here"},
		{func(f *facts) { f.kubeProxy.mode, f.programmed = "ipvs", true },
			"problem kube-proxy: runs on this node, in mode ipvs -> remove it from this node: " +
				"whichever of kube-proxy and nftproxy created its chains last translates new connections"},
		{func(f *facts) { f.kubeProxy.rules = "table ip kube-proxy" },
			"problem kube-proxy: has rules in nftables: table ip kube-proxy" + takeOver},
		{func(f *facts) { f.kubeProxy.rules, f.kubeProxy.mode = "table ip kube-proxy", "nftables" },
			"note kube-proxy: has rules in nftables: table ip kube-proxy" + takeOver},
		{func(f *facts) { f.kubeProxy.outside = []takeover.Leftover{{What: "kube-ipvs0", Advice: "delete it"}} },
			"problem kube-proxy: has kube-ipvs0 -> delete it"},
	}
}

// TestNeighbours recognises each program by a table, a chain or an interface.
func TestNeighbours(t *testing.T) {
	in := func(table string, chains ...string) []kernel.Table {
		t := kernel.Table{Family: "ip", Name: table}
		for _, name := range append(chains, "POSTROUTING") {
			t.Chains = append(t.Chains, kernel.TableChain{Name: name})
		}
		return []kernel.Table{t}
	}
	for _, test := range []struct {
		tables     []kernel.Table
		interfaces []string
		want       string
	}{
		{in("firewalld"), nil, "note firewalld"},
		{in("filter", "ufw-user-input"), nil, "note ufw"},
		{in("nat", "DOCKER"), nil, "ok Docker"},
		{in("docker-bridges"), nil, "ok Docker"},
		{in("netavark"), nil, "ok podman"},
		{in("filter", "LIBVIRT_FWI"), nil, "ok libvirt"},
		{in("nat", "FLANNEL-POSTRTG"), nil, "ok flannel"},
		{nil, []string{"flannel.1"}, "ok flannel"},
		{in("filter", "cali-FORWARD"), nil, "ok Calico"},
		{nil, []string{"bpfin.cali"}, "note Calico, eBPF mode"},
		{nil, []string{"cilium_host"}, "note Cilium"},
		{in("mangle", "WEAVE-CANARY"), nil, "ok Weave Net"},
		{in("ovn-kubernetes"), nil, "note OVN-Kubernetes"},
		{nil, []string{"antrea-gw0"}, "note Antrea"},
		{nil, []string{"kube-dummy-if"}, "note kube-router, service proxy"},
		{in("filter", "KUBE-NWPLCY-DEFAULT"), nil, "ok kube-router"},
		{in("kindnet-ipmasq"), nil, "ok kindnet"},
		{in("nat", "CNI-HOSTPORT-DNAT"), nil, "ok CNI portmap"},
		{nil, []string{"nodelocaldns"}, "ok NodeLocal DNSCache"},
		{in("filter", "KUBE-FIREWALL", "DOCKERISH"), []string{"eth0", "docker"}, "ok other rule sets"},
	} {
		var got []string
		node := facts{tables: test.tables, host: hostFacts{interfaces: test.interfaces}}
		for _, f := range reportNeighbours(&node) {
			got = append(got, fmt.Sprintf("%s %s", f.State, f.Subject))
		}
		if diff := cmp.Diff([]string{test.want}, got); diff != "" {
			t.Errorf("%v %v (-want +got):\n%s", test.tables, test.interfaces, diff)
		}
	}
}
