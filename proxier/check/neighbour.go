package check

import (
	"slices"
	"strings"

	"github.com/nftproxy/nftproxy/proxier/kernel"
)

// neighbour is another program with rules or interfaces on the nodes of a cluster, and how nftproxy works
// next to it. The program is on the node if one of the tables, chains or interfaces is there. A * at the end
// of a name matches anything.
type neighbour struct {
	name       string
	tables     []string
	chains     []string
	interfaces []string

	state          State
	detail, advice string
}

const (
	afterNFTProxy  = "its policies see packets after nftproxy has translated them, as with kube-proxy"
	servesServices = "it serves Services itself"
)

// neighbours returns the known programs in the order of the report: firewalls, container engines, CNI
// plugins.
func neighbours() []neighbour {
	return append(hostPrograms(), networkPlugins()...)
}

func hostPrograms() []neighbour {
	return []neighbour{
		{
			name: "firewalld", tables: []string{"firewalld"}, state: Note,
			detail: "it rejects forwarded packets that no zone allows; reloads leave nftproxy's tables alone",
			advice: "put the pods' interfaces or ranges into the zone trusted, if they are not in it",
		}, {
			name: "ufw", chains: []string{"ufw-*", "ufw6-*"}, state: Note,
			detail: "it drops forwarded packets by default, after nftproxy has translated them",
			advice: `set DEFAULT_FORWARD_POLICY="ACCEPT", or use "ufw route allow" for the pods' ranges`,
		}, {
			name: "Docker", tables: []string{"docker-bridges"}, chains: []string{"DOCKER", "DOCKER-*"},
			interfaces: []string{"docker0"}, state: OK,
			detail: "its rules are for its own containers; " +
				"if it sets the policy of chain FORWARD to drop, forwarding has a note",
		}, {
			name: "podman", tables: []string{"netavark"}, chains: []string{"NETAVARK-*"}, state: OK,
			detail: "its rules are for its own containers",
		}, {
			name: "libvirt", tables: []string{"libvirt_network"}, chains: []string{"LIBVIRT_*"}, state: OK,
			detail: "its rules are for its own bridges",
		},
	}
}

func networkPlugins() []neighbour {
	return []neighbour{
		{
			name: "flannel", tables: []string{"flannel-ipv4", "flannel-ipv6"}, chains: []string{"FLANNEL-*"},
			interfaces: []string{"flannel.*", "flannel-v6.*"}, state: OK,
			detail: "it masquerades packets that leave the pod network, after nftproxy has translated them",
		}, {
			name: "Calico, eBPF mode", interfaces: []string{"bpfin.cali"}, state: Note,
			detail: servesServices + ", before nftproxy sees a packet",
			advice: "set bpfEnabled to false, or do not run nftproxy",
		}, {
			name: "Calico", tables: []string{"calico"}, chains: []string{"cali-*"},
			interfaces: []string{"cali*", "vxlan.calico"}, state: OK, detail: afterNFTProxy,
		}, {
			name: "Cilium", chains: []string{"CILIUM_*"},
			interfaces: []string{"cilium_*", "lxc_health"}, state: Note,
			detail: "with its kube-proxy replacement " + servesServices + ", before nftproxy sees a packet",
			advice: "set kubeProxyReplacement to false, or do not run nftproxy",
		}, {
			name: "Weave Net", chains: []string{"WEAVE", "WEAVE-*"}, interfaces: []string{"weave"}, state: OK,
			detail: afterNFTProxy,
		}, {
			name: "OVN-Kubernetes", tables: []string{"ovn-kubernetes"}, chains: []string{"OVN-KUBE-*"},
			interfaces: []string{"ovn-k8s-mp*"}, state: Note,
			detail: servesServices, advice: "do not run nftproxy",
		}, {
			name: "Antrea", chains: []string{"ANTREA-*"}, interfaces: []string{"antrea-gw*"}, state: Note,
			detail: "with AntreaProxy " + servesServices,
			advice: "disable AntreaProxy and its proxyAll, or do not run nftproxy",
		}, {
			name: "kube-router, service proxy", interfaces: []string{"kube-dummy-if"}, state: Note,
			detail: servesServices, advice: "run it with --run-service-proxy=false, or do not run nftproxy",
		}, {
			name: "kube-router", chains: []string{"KUBE-ROUTER-*", "KUBE-NWPLCY-*"},
			interfaces: []string{"kube-bridge"}, state: OK, detail: afterNFTProxy,
		}, {
			name: "kindnet", tables: []string{"kindnet*", "kube-network-policies"}, state: OK,
			detail: afterNFTProxy,
		}, {
			// See takeover.TestNewestChainTranslates.
			name: "CNI portmap", tables: []string{"cni_hostport"}, chains: []string{"CNI-HOSTPORT-*"},
			state: OK, detail: "it serves hostPorts; if a port is both a hostPort and a nodePort, " +
				"the program that created its chains last gets the connections",
		}, {
			name: "NodeLocal DNSCache", interfaces: []string{"nodelocaldns"}, state: OK,
			detail: "its traffic is exempt from connection tracking, and so from nftproxy",
		},
	}
}

// isOn reports whether the neighbour is on a node with these tables and interfaces.
func (n *neighbour) isOn(tables []kernel.Table, interfaces []string) bool {
	if slices.ContainsFunc(interfaces, func(name string) bool { return matches(n.interfaces, name) }) {
		return true
	}
	isItsChain := func(c kernel.TableChain) bool { return matches(n.chains, c.Name) }
	return slices.ContainsFunc(tables, func(t kernel.Table) bool {
		return matches(n.tables, t.Name) || slices.ContainsFunc(t.Chains, isItsChain)
	})
}

// matches reports whether a name matches one of the patterns.
func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		prefix, any := strings.CutSuffix(p, "*")
		return p == name || any && strings.HasPrefix(name, prefix)
	})
}
