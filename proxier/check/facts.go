package check

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/nftproxy/nftproxy/proxier/conntrack"
	"github.com/nftproxy/nftproxy/proxier/host"
	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/proxier/takeover"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// facts are the input of a report.
type facts struct {
	host          hostFacts
	families      []service.Family // that the cluster uses, if the node shows it
	notForwarding []string         // sysctls that keep the node from forwarding packets of these families

	refused error            // why nftables could not be read; nil if it could
	noIPv6  bool             // the kernel does not support IPv6
	missing []kernel.Missing // features that the rules need and the kernel lacks
	tables  []kernel.Table   // of nftables and of iptables-legacy
	marks   []kernel.MarkRule

	programmed bool // nftproxy's tables are in the kernel
	kubeProxy  kubeProxyFacts
	localMode  string // detectLocalMode
	podTraffic rules.PodTraffic
	nodePorts  nodePortFacts
}

// hostFacts are the facts about the host besides nftables.
type hostFacts struct {
	kernel     string // release
	interfaces []string
	flows      conntrack.Usage // zero where it is not in use yet
	// losses are what conntrack has dropped.
	losses conntrack.Losses
}

// kubeProxyFacts are the facts about kube-proxy on this node.
type kubeProxyFacts struct {
	mode    string              // of a running kube-proxy; empty if none runs
	rules   string              // in nftables, which --take-over removes
	outside []takeover.Leftover // outside nftables, which --take-over does not remove
}

// nodePortFacts are the addresses that serve nodePorts.
type nodePortFacts struct {
	configured  string // nodePortAddresses
	primary     bool   // it includes the addresses of the Node object
	nodeUnknown string // why the Node object could not be read; empty if it was
	addrs       []netip.Addr
}

// readHost returns the facts about the host, in the network namespace of the calling thread.
func readHost() (hostFacts, error) {
	var h hostFacts
	var err error
	if h.kernel, err = host.KernelRelease(); err != nil {
		return h, err
	}
	links, err := netlink.LinkList()
	if err != nil {
		return h, fmt.Errorf("list interfaces: %w", err)
	}
	for _, l := range links {
		h.interfaces = append(h.interfaces, l.Attrs().Name)
	}
	slices.Sort(h.interfaces)
	if h.flows, err = conntrack.ReadUsage("/proc/sys/net"); err == nil {
		h.losses, _ = conntrack.ReadLosses() // an error is that of nftables, which has a finding
	}
	return h, nil
}
