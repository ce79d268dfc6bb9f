package check

import (
	"slices"
	"strings"

	"github.com/nftproxy/nftproxy/proxier/kernel"
)

// neighbour is somebody who has rules or interfaces on nodes of Kubernetes, and what
// is known of living with them. One of the names must be there; a * at the end of a
// name stands for anything.
type neighbour struct {
	name       string
	tables     []string
	chains     []string
	interfaces []string

	state          State
	detail, advice string
}

// neighbours are in the order of the report: firewalls, container engines, CNI plugins.
func neighbours() []neighbour {
	return []neighbour{
		{name: "firewalld", tables: []string{"firewalld"}, state: Note,
			detail: "it has tables of its own, and a reload leaves nftproxy's alone; it rejects forwarded packets that no zone of it allows",
			advice: "put the pods' interfaces or ranges into its zone trusted, if that is not done"},
		{name: "ufw", chains: []string{"ufw-*", "ufw6-*"}, state: Note,
			detail: "it drops forwarded packets by default; its chains are passed after nftproxy has translated",
			advice: "set DEFAULT_FORWARD_POLICY=\"ACCEPT\", or `ufw route allow` for the pods' ranges"},
		{name: "Docker", tables: []string{"docker-bridges"}, chains: []string{"DOCKER", "DOCKER-*"}, interfaces: []string{"docker0"}, state: OK,
			detail: "its rules are about its own containers; it may set the policy of chain FORWARD to drop, see forwarding"},
		{name: "podman", tables: []string{"netavark"}, chains: []string{"NETAVARK-*"}, state: OK, detail: "its rules are about its own containers"},
		{name: "libvirt", tables: []string{"libvirt_network"}, chains: []string{"LIBVIRT_*"}, state: OK, detail: "its rules are about its own bridges"},
		{name: "flannel", tables: []string{"flannel-ipv4", "flannel-ipv6"}, chains: []string{"FLANNEL-*"}, interfaces: []string{"flannel.*", "flannel-v6.*"}, state: OK,
			detail: "it masquerades what leaves the pods' network, after nftproxy has translated"},
		{name: "Calico, eBPF mode", interfaces: []string{"bpfin.cali"}, state: Note,
			detail: "it serves Services itself, before nftproxy sees a packet", advice: "set bpfEnabled to false, or leave nftproxy out"},
		{name: "Calico", tables: []string{"calico"}, chains: []string{"cali-*"}, interfaces: []string{"cali*", "vxlan.calico"}, state: OK,
			detail: "its policies see packets after nftproxy has translated, as with kube-proxy"},
		{name: "Cilium", chains: []string{"CILIUM_*"}, interfaces: []string{"cilium_*", "lxc_health"}, state: Note,
			detail: "with its kube-proxy replacement it serves Services itself, before nftproxy sees a packet",
			advice: "set kubeProxyReplacement to false, or leave nftproxy out"},
		{name: "Weave Net", chains: []string{"WEAVE", "WEAVE-*"}, interfaces: []string{"weave"}, state: OK,
			detail: "its policies see packets after nftproxy has translated, as with kube-proxy"},
		{name: "OVN-Kubernetes", tables: []string{"ovn-kubernetes"}, chains: []string{"OVN-KUBE-*"}, interfaces: []string{"ovn-k8s-mp*"}, state: Note,
			detail: "it serves Services itself", advice: "leave nftproxy out"},
		{name: "Antrea", chains: []string{"ANTREA-*"}, interfaces: []string{"antrea-gw*"}, state: Note,
			detail: "with AntreaProxy it serves Services to pods itself", advice: "leave nftproxy out, or AntreaProxy and its proxyAll"},
		{name: "kube-router, service proxy", interfaces: []string{"kube-dummy-if"}, state: Note,
			detail: "it serves Services itself", advice: "run it with --run-service-proxy=false, or leave nftproxy out"},
		{name: "kube-router", chains: []string{"KUBE-ROUTER-*", "KUBE-NWPLCY-*"}, interfaces: []string{"kube-bridge"}, state: OK,
			detail: "its policies see packets after nftproxy has translated, as with kube-proxy"},
		{name: "kindnet", tables: []string{"kindnet*", "kube-network-policies"}, state: OK,
			detail: "its policies see packets after nftproxy has translated, as with kube-proxy"},
		{name: "CNI portmap", tables: []string{"cni_hostport"}, chains: []string{"CNI-HOSTPORT-*"}, state: OK,
			detail: "hostPorts are served by it; a hostPort that is also a nodePort goes to whoever's rules came first"},
		{name: "NodeLocal DNSCache", interfaces: []string{"nodelocaldns"}, state: OK,
			detail: "what it serves is exempt from connection tracking, and so from nftproxy"},
	}
}

// found returns the findings about who is there.
func found(tables []kernel.Table, interfaces []string) (findings []Finding) {
	for _, n := range neighbours() {
		if n.isThere(tables, interfaces) {
			findings = append(findings, Finding{n.name, n.state, n.detail, n.advice})
		}
	}
	if len(findings) == 0 {
		return []Finding{{"other rule sets", OK, "none of those that nftproxy knows", ""}}
	}
	return findings
}

func (n *neighbour) isThere(tables []kernel.Table, interfaces []string) bool {
	if slices.ContainsFunc(interfaces, func(name string) bool { return matches(n.interfaces, name) }) {
		return true
	}
	return slices.ContainsFunc(tables, func(t kernel.Table) bool {
		return matches(n.tables, t.Name) || slices.ContainsFunc(t.Chains, func(c kernel.TableChain) bool { return matches(n.chains, c.Name) })
	})
}

// matches reports whether a name is one of the patterns.
func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		prefix, any := strings.CutSuffix(p, "*")
		return p == name || any && strings.HasPrefix(name, prefix)
	})
}
