package check

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/proxier/takeover"
	"github.com/nftproxy/nftproxy/rules"
)

// Facts are the input of a report.
type Facts struct {
	Host       Host
	Families   []string // IPv4, IPv6: those that the cluster uses, if the node says so
	Forwarding []string // the settings that keep the node from forwarding their packets, as advice

	Refused string           // why the kernel could not be asked for its nftables; empty if it could
	NoIPv6  bool             // the kernel has no IPv6
	Missing []kernel.Missing // features that the rules need and the kernel lacks
	Tables  []kernel.Table   // of nftables and of iptables-legacy

	Programmed bool // nftproxy's tables are in the kernel
	KubeProxy  KubeProxy
	PodTraffic PodTraffic
	NodePorts  NodePorts
}

// Host are the facts about the host besides nftables.
type Host struct {
	Kernel     string // release
	Interfaces []string
	// Flows are how many connections conntrack may track, and how many it tracks; Max is 0 where it is not in use yet.
	Flows struct{ Max, Count int }
}

// KubeProxy is what there is of kube-proxy on the node.
type KubeProxy struct {
	Mode    string              // of one that runs; empty if none does
	Rules   string              // in nftables, which --take-over removes
	Outside []takeover.Leftover // outside nftables, which it does not remove
}

// PodTraffic says how the node recognises traffic of this cluster's pods.
type PodTraffic struct {
	Mode string // detectLocalMode
	rules.PodTraffic
}

// NodePorts says where nodePorts are served.
type NodePorts struct {
	Configured  string // nodePortAddresses
	Primary     bool   // those of the Node object are among them
	NodeUnknown string // why there is no Node object; empty if there is one
	Addrs       []netip.Addr
}

// ReadHost returns what can be seen in the network namespace of the calling thread.
func ReadHost() (Host, error) {
	var h Host
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return h, fmt.Errorf("read kernel release: %w", err)
	}
	h.Kernel = unix.ByteSliceToString(name.Release[:])
	links, err := netlink.LinkList()
	if err != nil {
		return h, fmt.Errorf("list interfaces: %w", err)
	}
	for _, l := range links {
		h.Interfaces = append(h.Interfaces, l.Attrs().Name)
	}
	slices.Sort(h.Interfaces)
	h.Flows.Max = readNumber("/proc/sys/net/netfilter/nf_conntrack_max")
	h.Flows.Count = readNumber("/proc/sys/net/netfilter/nf_conntrack_count")
	return h, nil
}

// readNumber returns the number in a file, 0 where there is none.
func readNumber(path string) int {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return 0
	}
	return n
}
