package preflight

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Facts are what a report is made from.
type Facts struct {
	Host       Host
	Families   []string // IPv4, IPv6: those that the cluster uses, as far as is known
	Forwarding []string // what keeps the node from forwarding packets of them, as advice

	Refused string    // why the kernel could not be asked for its nftables; empty if it could
	NoIPv6  bool      // the kernel is without IPv6
	Missing []Missing // what the rules need and the kernel lacks
	Tables  []Table   // of nftables and of iptables-legacy

	Programmed bool // nftproxy's tables are there
	KubeProxy  KubeProxy
	PodTraffic PodTraffic
	NodePorts  NodePorts
}

// Host is what can be seen of the host without nftables.
type Host struct {
	Kernel     string // release
	Interfaces []string
	// Flows are how many connections conntrack may track, and how many there are; Max
	// is 0 where it is not in use yet.
	Flows struct{ Max, Count int }
}

// Missing is something that the kernel lacks.
type Missing struct {
	What  string
	Needs string // what brings it
}

// Table is a table of rules, whoever made it.
type Table struct {
	Family, Name string
	Chains       []string
	ForwardDrop  bool // what is forwarded is dropped unless a rule accepts it
}

// KubeProxy is what there is of kube-proxy.
type KubeProxy struct {
	Mode    string     // of one that runs; empty if none does
	Rules   string     // in nftables, which --take-over removes
	Outside []Leftover // that it does not remove
}

// Leftover is something of kube-proxy's, and how to remove it.
type Leftover struct{ What, Advice string }

// PodTraffic says how traffic of this cluster's pods is known.
type PodTraffic struct {
	Mode      string // detectLocalMode
	CIDRs     []netip.Prefix
	Interface string // a name, or a prefix followed by *
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
