package check

import (
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestGoldenForms(t *testing.T) {
	findings := []Finding{
		{"kernel", OK, "Linux 6.18.0", ""},
		{"nftables", Problem, "the kernel lacks ip numgen random", "it needs CONFIG_NFT_NUMGEN (module nft_numgen) <6.18>"},
		{"pods' traffic", Note, "cannot be told", "give clusterCIDR"},
	}
	for file, write := range map[string]func(io.Writer, []Finding) error{"report.txt": WriteText, "report.json": WriteJSON} {
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
		t.Error("only a problem makes a node unfit")
	}
}

// good are the facts of a node where all is well.
func good() Facts {
	f := Facts{
		Host:       Host{Kernel: "6.18.0", Interfaces: []string{"cni0", "eth0", "lo", "veth1234"}},
		Families:   []string{"IPv4", "IPv6"},
		PodTraffic: PodTraffic{Mode: "ClusterCIDR", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}},
		NodePorts:  NodePorts{Configured: "primary", Primary: true, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
	}
	f.Host.Flows.Max, f.Host.Flows.Count = 1000, 900
	return f
}

func TestReportOfGoodNode(t *testing.T) {
	f := good()
	want := []string{
		"ok kernel: Linux 6.18.0",
		"ok nftables: the kernel has all that the rules need",
		"ok tables: nftproxy's tables are not there yet",
		"ok forwarding: the node forwards IPv4 and IPv6",
		"ok conntrack: 900 of at most 1000 flows",
		"ok nodePorts: on 192.0.2.1 (nodePortAddresses: primary)",
		"ok pods' traffic: known by its source address, in 10.244.0.0/16 (detectLocalMode: ClusterCIDR)",
		"ok kube-proxy: none runs here, and it has left nothing",
		"ok other rule sets: none of those that nftproxy knows",
	}
	if diff := cmp.Diff(want, lines(Report(&f))); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
}

func lines(findings []Finding) (out []string) {
	for _, f := range findings {
		out = append(out, fmt.Sprintf("%s %s: %s", f.State, f.Subject, f.Detail))
	}
	return out
}

// TestReport changes one fact of the good node each time, and looks for one finding.
func TestReport(t *testing.T) {
	for _, test := range []struct {
		change func(*Facts)
		want   string
	}{
		{func(f *Facts) { f.Refused = "permission denied" }, "problem nftables: the kernel could not be asked: permission denied"},
		{func(f *Facts) { f.Missing = []Missing{{"ip numgen", "Linux 4.9"}} }, "problem nftables: the kernel lacks ip numgen"},
		{func(f *Facts) { f.NoIPv6 = true }, "note nftables: the kernel has no IPv6: only IPv4 is programmed"},
		{func(f *Facts) { f.Programmed = true }, "ok tables: nftproxy's tables are there"},
		{func(f *Facts) { f.Forwarding = []string{"ip_forward is 0; set it to 1"} }, "problem forwarding: ip_forward is 0"},
		{func(f *Facts) { f.Tables = []Table{{Family: "ip", Name: "filter", ForwardDrop: true}} },
			"note forwarding: a chain of table ip filter drops forwarded packets unless a rule in it accepts them"},
		{func(f *Facts) { f.Host.Flows.Count = 901 }, "problem conntrack: 901 of at most 1000 flows: when all are in use, new connections are dropped"},
		{func(f *Facts) { f.Host.Flows.Max = 0 }, "ok conntrack: not in use yet"},
		{func(f *Facts) { f.NodePorts.Addrs, f.NodePorts.NodeUnknown = nil, "no API server" },
			"note nodePorts: on the primary addresses of the Node object, which is not at hand: no API server"},
		{func(f *Facts) { f.NodePorts = NodePorts{Configured: "10.9.0.0/16"} },
			"note nodePorts: on no address: the node has none in nodePortAddresses: 10.9.0.0/16"},
		{func(f *Facts) { f.PodTraffic = PodTraffic{Mode: "BridgeInterface", Interface: "cni0"} },
			"ok pods' traffic: known by the interface it arrives on, cni0 (detectLocalMode: BridgeInterface)"},
		{func(f *Facts) { f.PodTraffic = PodTraffic{Mode: "InterfaceNamePrefix", Interface: "veth*"} },
			"ok pods' traffic: known by the interface it arrives on, veth* (detectLocalMode: InterfaceNamePrefix)"},
		{func(f *Facts) { f.PodTraffic = PodTraffic{Mode: "InterfaceNamePrefix", Interface: "eni*"} },
			"note pods' traffic: known by the interface it arrives on, eni* (detectLocalMode: InterfaceNamePrefix), of which there is none"},
		{func(f *Facts) { f.PodTraffic = PodTraffic{Mode: "NodeCIDR"} },
			"note pods' traffic: cannot be told from other traffic: no range is known (detectLocalMode: NodeCIDR); " +
				"connections to ClusterIPs from outside the cluster are not masqueraded"},
		{func(f *Facts) { f.KubeProxy.Mode = "ipvs" }, "note kube-proxy: one runs on this node, in mode ipvs"},
		{func(f *Facts) { f.KubeProxy.Mode, f.Programmed = "ipvs", true }, "problem kube-proxy: one runs on this node, in mode ipvs"},
		{func(f *Facts) { f.KubeProxy.Rules = "table ip kube-proxy" }, "problem kube-proxy: its rules are there: table ip kube-proxy"},
		{func(f *Facts) { f.KubeProxy.Rules, f.KubeProxy.Mode = "table ip kube-proxy", "nftables" },
			"note kube-proxy: its rules are there: table ip kube-proxy"},
		{func(f *Facts) { f.KubeProxy.Outside = []Leftover{{"kube-ipvs0", "delete it"}} }, "problem kube-proxy: it has left kube-ipvs0"},
	} {
		f := good()
		test.change(&f)
		if got := lines(Report(&f)); !contains(got, test.want) {
			t.Errorf("want %q in\n  %s", test.want, strings.Join(got, "\n  "))
		}
	}
}

func contains(list []string, want string) bool {
	for _, s := range list {
		if s == want {
			return true
		}
	}
	return false
}

// TestNeighbours finds each by what it leaves on a node.
func TestNeighbours(t *testing.T) {
	in := func(table string, chains ...string) []Table {
		return []Table{{Family: "ip", Name: table, Chains: append(chains, "POSTROUTING")}}
	}
	for _, test := range []struct {
		tables     []Table
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
		for _, f := range found(test.tables, test.interfaces) {
			got = append(got, fmt.Sprintf("%s %s", f.State, f.Subject))
		}
		if diff := cmp.Diff([]string{test.want}, got); diff != "" {
			t.Errorf("%v %v (-want +got):\n%s", test.tables, test.interfaces, diff)
		}
	}
}
