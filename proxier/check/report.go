package check

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/proxier/netlink"
)

// report judges the facts. Its findings are always in the same order.
func report(f *facts) []Finding {
	findings := []Finding{{"kernel", OK, "Linux " + f.host.kernel, ""}}
	findings = append(findings, reportNFTables(f)...)
	findings = append(findings, reportForwarding(f)...)
	findings = append(findings, reportMarks(f.marks)...)
	findings = append(findings, reportConntrack(f), reportNodePorts(&f.nodePorts), reportPodTraffic(f))
	findings = append(findings, reportKubeProxy(f)...)
	return append(findings, reportNeighbours(f)...)
}

func reportNFTables(f *facts) (findings []Finding) {
	const subject = "nftables"
	if f.refused != nil {
		advice := "run this as root or with CAP_NET_ADMIN, in the network namespace of the node"
		if errors.Is(f.refused, netlink.ErrAbsent) {
			advice = "use a kernel with CONFIG_NF_TABLES, or install its modules"
		}
		return []Finding{{subject, Problem, "cannot read nftables: " + f.refused.Error(), advice}}
	}
	for _, m := range f.missing {
		if m.Optional {
			findings = append(findings, Finding{subject, Note,
				fmt.Sprintf("the kernel lacks %s %s: nftproxy counts no connections", m.Family, m.Feature),
				"for the metric nftproxy_service_connections_total use a kernel with " + m.Needs})
			continue
		}
		findings = append(findings, Finding{subject, Problem,
			fmt.Sprintf("the kernel lacks %s %s (%v)", m.Family, cmp.Or(m.Feature, "tables"), m.Err),
			"the rules need " + m.Needs})
	}
	if f.noIPv6 {
		findings = append(findings, Finding{subject, Note,
			"the kernel does not support IPv6: nftproxy programs IPv4 only", ""})
	}
	if len(findings) == 0 {
		findings = []Finding{{subject, OK, "the kernel supports everything that the rules need", ""}}
	}
	programmed := "nftproxy's tables do not exist yet"
	if f.programmed {
		programmed = "nftproxy's tables exist"
	}
	return append(findings, Finding{"tables", OK, programmed, ""})
}

// reportForwarding judges whether packets can pass through the node.
func reportForwarding(f *facts) (findings []Finding) {
	const subject = "forwarding"
	for _, sysctl := range f.notForwarding {
		findings = append(findings, Finding{subject, Problem, "sysctl " + sysctl +
			" is 0: the node does not forward packets to pods and to endpoints on other nodes",
			"set it to 1"})
	}
	for _, t := range f.tables {
		if dropsForwarded(t) {
			findings = append(findings, Finding{subject, Note, "a chain of table " + t.Family + " " + t.Name +
				" drops forwarded packets unless a rule in it accepts them",
				"check that the CNI plugin accepts the pods' traffic there, or set its policy to accept"})
		}
	}
	if len(findings) > 0 {
		return findings
	}
	var families []string
	for _, family := range f.families {
		families = append(families, family.APIName())
	}
	return []Finding{{subject, OK, "the node forwards " + strings.Join(families, " and "), ""}}
}

// reportMarks judges rules of other programs that change the bit of the mark by which nftproxy masquerades.
func reportMarks(marks []kernel.MarkRule) (findings []Finding) {
	for _, m := range marks {
		does, so := "clears", "replies may go past this node"
		if m.Sets {
			does, so = "sets", "pods may see this node as their client"
		}
		findings = append(findings, Finding{"mark", Note, fmt.Sprintf("chain %s of table %s %s %s the bit of the "+
			"mark by which nftproxy masquerades: %s", m.Chain, m.Family, m.Table, does, so),
			"give that program another bit, or nftproxy with masqueradeBit"})
	}
	return findings
}

// dropsForwarded reports whether the table drops forwarded packets unless a rule accepts them.
func dropsForwarded(t kernel.Table) bool {
	return slices.ContainsFunc(t.Chains, func(c kernel.TableChain) bool {
		return c.Drop && c.Hook != nil && c.Hook.Name == "forward"
	})
}

// fullAbove is the percentage of conntrack's table in use above which there is a problem.
const fullAbove = 90

func reportConntrack(f *facts) Finding {
	const subject = "conntrack"
	flows := f.host.flows
	detail := fmt.Sprintf("%d of at most %d flows", flows.Flows, flows.Most)
	switch {
	case flows.Most == 0:
		return Finding{subject, OK, "not in use yet", ""}
	case flows.Flows*100 > flows.Most*fullAbove:
		return Finding{subject, Problem,
			detail + ": when the table is full, the kernel drops new connections",
			"raise conntrack.min or conntrack.maxPerCore in the configuration"}
	case f.host.losses.Dropped > 0:
		return Finding{subject, Note, fmt.Sprintf("%s; %d packets of new connections were dropped since the boot, "+
			"%d of them because another flow has the same addresses and ports", detail,
			f.host.losses.Dropped, f.host.losses.Insert),
			"a few are normal; if the numbers grow, the table has been full, or masquerading has no free port"}
	}
	return Finding{subject, OK, detail, ""}
}

func reportNodePorts(n *nodePortFacts) Finding {
	const subject = "nodePorts"
	configured := fmt.Sprintf(" (nodePortAddresses: %s)", n.configured)
	var addrs []string
	for _, a := range n.addrs {
		addrs = append(addrs, a.String())
	}
	if n.primary && n.nodeUnknown != "" {
		addrs = append(addrs, "the primary addresses of the Node object")
		return Finding{subject, Note, fmt.Sprintf("served on %s%s; the Node object cannot be read: %s",
			strings.Join(addrs, ", "), configured, n.nodeUnknown),
			"use a kubeconfig that may list nodes, or add the Node object to --source"}
	}
	if len(addrs) == 0 {
		return Finding{subject, Note,
			"not served: the node has no address in the configured ranges" + configured,
			"change nodePortAddresses if the cluster uses nodePorts"}
	}
	return Finding{subject, OK, "served on " + strings.Join(addrs, ", ") + configured, ""}
}

func reportPodTraffic(f *facts) Finding {
	const subject = "pods' traffic"
	p, mode := &f.podTraffic, fmt.Sprintf(" (detectLocalMode: %s)", f.localMode)
	switch {
	case p.Interface != "":
		detail := "recognised by the interface it arrives on, " + p.Interface + mode
		isIt := func(name string) bool { return matches([]string{p.Interface}, name) }
		if !slices.ContainsFunc(f.host.interfaces, isIt) {
			return Finding{subject, Note, detail + "; the node does not have such an interface",
				"check the name, unless no pod has run on this node yet"}
		}
		return Finding{subject, OK, detail, ""}
	case len(p.CIDRs) > 0:
		return Finding{subject, OK, "recognised by its source address, in " + join(p.CIDRs) + mode, ""}
	}
	return Finding{subject, Note, "not recognised, because no pod range is known" + mode +
		": nftproxy does not masquerade connections to ClusterIPs from outside the cluster",
		"set clusterCIDR (--cluster-cidr), or for NodeCIDR provide a Node object with podCIDRs"}
}

func join(prefixes []netip.Prefix) string {
	var list []string
	for _, p := range prefixes {
		list = append(list, p.String())
	}
	return strings.Join(list, ", ")
}

// reportKubeProxy judges kube-proxy and its rules. They are expected before nftproxy runs. Rules that no
// process updates are a problem, and so are two proxies that both run.
func reportKubeProxy(f *facts) (findings []Finding) {
	const subject = "kube-proxy"
	k := &f.kubeProxy
	stale := Problem
	if k.mode != "" {
		stale = Note
		running := Finding{subject, Note, "runs on this node, in mode " + k.mode,
			"remove it from this node when nftproxy runs here"}
		if f.programmed {
			// See takeover.TestNewestChainTranslates.
			running.State, running.Advice = Problem, "remove it from this node: "+
				"whichever of kube-proxy and nftproxy created its chains last translates new connections"
		}
		findings = append(findings, running)
	}
	if k.rules != "" {
		findings = append(findings, Finding{subject, stale, "has rules in nftables: " + k.rules,
			"run nftproxy with --take-over, which removes them when kube-proxy has ended"})
	}
	for _, l := range k.outside {
		findings = append(findings, Finding{subject, stale, "has " + l.What, l.Advice})
	}
	if len(findings) == 0 {
		return []Finding{{subject, OK, "does not run on this node and has no rules here", ""}}
	}
	return findings
}

// reportNeighbours returns a finding for each neighbour that is on the node.
func reportNeighbours(f *facts) (findings []Finding) {
	for _, n := range neighbours() {
		if n.isOn(f.tables, f.host.interfaces) {
			findings = append(findings, Finding{n.name, n.state, n.detail, n.advice})
		}
	}
	if len(findings) == 0 {
		return []Finding{{"other rule sets", OK, "none that nftproxy recognises", ""}}
	}
	return findings
}
