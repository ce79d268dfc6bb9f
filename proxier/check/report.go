package check

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/nftproxy/nftproxy/proxier/kernel"
)

// Report judges the facts. Its order is always the same.
func Report(f *Facts) []Finding {
	findings := []Finding{{"kernel", OK, "Linux " + f.Host.Kernel, ""}}
	findings = append(findings, features(f)...)
	findings = append(findings, forwarding(f)...)
	findings = append(findings, conntrack(f.Host), nodePorts(&f.NodePorts), podTraffic(&f.PodTraffic, f.Host.Interfaces))
	findings = append(findings, kubeProxy(f)...)
	return append(findings, found(f.Tables, f.Host.Interfaces)...)
}

func features(f *Facts) (findings []Finding) {
	const subject = "nftables"
	if f.Refused != "" {
		return []Finding{{subject, Problem, "the kernel could not be asked: " + f.Refused, "run this as root, or with CAP_NET_ADMIN, in the network namespace of the node"}}
	}
	for _, m := range f.Missing {
		findings = append(findings, Finding{subject, Problem, "the kernel lacks " + m.Family.String() + " " + m.Feature,
			fmt.Sprintf("it needs %s (%v)", m.Needs, m.Err)})
	}
	if f.NoIPv6 {
		findings = append(findings, Finding{subject, Note, "the kernel has no IPv6: only IPv4 is programmed", ""})
	}
	if len(findings) == 0 {
		findings = append(findings, Finding{subject, OK, "the kernel has all that the rules need", ""})
	}
	programmed := "nftproxy's tables are not there yet"
	if f.Programmed {
		programmed = "nftproxy's tables are there"
	}
	return append(findings, Finding{"tables", OK, programmed, ""})
}

// forwarding is about whether packets come through the node.
func forwarding(f *Facts) (findings []Finding) {
	const subject = "forwarding"
	for _, advice := range f.Forwarding {
		detail, todo, _ := strings.Cut(advice, "; ")
		findings = append(findings, Finding{subject, Problem, detail, todo})
	}
	for _, t := range f.Tables {
		if dropsForwarded(t) {
			findings = append(findings, Finding{subject, Note,
				fmt.Sprintf("a chain of table %s %s drops forwarded packets unless a rule in it accepts them", t.Family, t.Name),
				"see that the CNI plugin accepts the pods' traffic there, or set the policy of that chain to accept"})
		}
	}
	if len(findings) == 0 {
		return []Finding{{subject, OK, "the node forwards " + strings.Join(f.Families, " and "), ""}}
	}
	return findings
}

// dropsForwarded reports whether the table drops forwarded packets unless a rule accepts them.
func dropsForwarded(t kernel.Table) bool {
	return slices.ContainsFunc(t.Chains, func(c kernel.TableChain) bool {
		return c.Drop && c.Hook != nil && c.Hook.Name == "forward"
	})
}

// fullAbove is how many per cent of conntrack's table in use are too many.
const fullAbove = 90

func conntrack(h Host) Finding {
	const subject = "conntrack"
	detail := fmt.Sprintf("%d of at most %d flows", h.Flows.Count, h.Flows.Max)
	switch {
	case h.Flows.Max == 0:
		return Finding{subject, OK, "not in use yet", ""}
	case h.Flows.Count*100 > h.Flows.Max*fullAbove:
		return Finding{subject, Problem, detail + ": when all are in use, new connections are dropped",
			"raise conntrack.min or conntrack.maxPerCore of the configuration"}
	}
	return Finding{subject, OK, detail, ""}
}

func nodePorts(n *NodePorts) Finding {
	const subject = "nodePorts"
	var addrs []string
	for _, a := range n.Addrs {
		addrs = append(addrs, a.String())
	}
	detail := fmt.Sprintf("on %s (nodePortAddresses: %s)", strings.Join(addrs, ", "), n.Configured)
	switch {
	case n.Primary && n.NodeUnknown != "":
		if len(addrs) > 0 {
			detail += ", and "
		} else {
			detail = ""
		}
		return Finding{subject, Note, detail + "on the primary addresses of the Node object, which is not at hand: " + n.NodeUnknown,
			"give a kubeconfig that may list nodes, or a Node object with --source"}
	case len(addrs) == 0:
		return Finding{subject, Note, "on no address: the node has none in nodePortAddresses: " + n.Configured, "change nodePortAddresses if nodePorts are used"}
	}
	return Finding{subject, OK, detail, ""}
}

func podTraffic(p *PodTraffic, interfaces []string) Finding {
	const subject = "pods' traffic"
	switch {
	case p.Interface != "":
		detail := fmt.Sprintf("known by the interface it arrives on, %s (detectLocalMode: %s)", p.Interface, p.Mode)
		if !slices.ContainsFunc(interfaces, func(name string) bool { return matches([]string{p.Interface}, name) }) {
			return Finding{subject, Note, detail + ", of which there is none", "check the name, unless no pod has been on this node yet"}
		}
		return Finding{subject, OK, detail, ""}
	case len(p.CIDRs) > 0:
		return Finding{subject, OK, fmt.Sprintf("known by its source address, in %s (detectLocalMode: %s)", join(p.CIDRs), p.Mode), ""}
	}
	return Finding{subject, Note, fmt.Sprintf("cannot be told from other traffic: no range is known (detectLocalMode: %s); "+
		"connections to ClusterIPs from outside the cluster are not masqueraded", p.Mode),
		"give clusterCIDR (--cluster-cidr), or for NodeCIDR a Node object with podCIDRs"}
}

func join(prefixes []netip.Prefix) string {
	var list []string
	for _, p := range prefixes {
		list = append(list, p.String())
	}
	return strings.Join(list, ", ")
}

// kubeProxy judges what there is of kube-proxy. Before nftproxy is started that is as
// it should be; rules that nobody keeps up to date, or two at work, are not.
func kubeProxy(f *Facts) (findings []Finding) {
	const subject = "kube-proxy"
	k := &f.KubeProxy
	if k.Mode != "" {
		one := Finding{subject, Note, fmt.Sprintf("one runs on this node, in mode %s", k.Mode), "see that it is not on this node any more when nftproxy is"}
		if f.Programmed {
			one.State, one.Advice = Problem, "take it off this node: of both, the rules that came first count"
		}
		findings = append(findings, one)
	}
	stale := Problem
	if k.Mode != "" {
		stale = Note
	}
	if k.Rules != "" {
		findings = append(findings, Finding{subject, stale, "its rules are there: " + k.Rules, "--take-over removes them, once nftproxy's are there and kube-proxy has ended"})
	}
	for _, l := range k.Outside {
		findings = append(findings, Finding{subject, stale, "it has left " + l.What, l.Advice})
	}
	if len(findings) == 0 {
		return []Finding{{subject, OK, "none runs here, and it has left nothing", ""}}
	}
	return findings
}
