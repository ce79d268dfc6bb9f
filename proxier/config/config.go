// Package config builds the Config that nftproxy runs with, from kube-proxy's configuration file
// (KubeProxyConfiguration, kubeproxy.config.k8s.io/v1alpha1) and kube-proxy's flags, with the defaults and
// the validation of kube-proxy 1.37.1. A cluster can thus change from kube-proxy to nftproxy and back with
// one configuration.
//
// As with kube-proxy, --config makes the proxy ignore the flags for fields of the file, except
// --hostname-override and the logging flags. Unlike with kube-proxy, the flags that the ruleset depends on
// override the file, too, so that a ruleset can be tried out with the file of a running cluster. Complete
// returns a warning for every setting that has no effect or a different one than in kube-proxy.
//
// Start reading at ledger, the table of all settings. Everything else follows from it: defaults, flags and
// their help, validation, warnings and docs/configuration.md.
package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"k8s.io/kube-proxy/config/v1alpha1"

	"github.com/nftproxy/nftproxy/proxier/address"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Values of mode and detectLocalMode.
const (
	ModeNFTables v1alpha1.ProxyMode = "nftables"
	ModeIPTables v1alpha1.ProxyMode = "iptables"
	ModeIPVS     v1alpha1.ProxyMode = "ipvs"

	LocalModeClusterCIDR         v1alpha1.LocalMode = "ClusterCIDR"
	LocalModeNodeCIDR            v1alpha1.LocalMode = "NodeCIDR"
	LocalModeBridgeInterface     v1alpha1.LocalMode = "BridgeInterface"
	LocalModeInterfaceNamePrefix v1alpha1.LocalMode = "InterfaceNamePrefix"
)

// Keywords of nodePortAddresses, which can be combined with each other and with CIDRs.
const (
	nodePortsPrimary   = "primary"
	nodePortsLocalhost = "localhost"
	nodePortsAll       = "all"
)

// LocalModes returns the values of detectLocalMode.
func LocalModes() []v1alpha1.LocalMode {
	return []v1alpha1.LocalMode{
		LocalModeClusterCIDR, LocalModeNodeCIDR, LocalModeBridgeInterface, LocalModeInterfaceNamePrefix,
	}
}

// Config is the whole configuration of nftproxy. Options.Complete returns it complete and valid; the methods
// of a Config from elsewhere may panic.
type Config struct {
	// Kube is defaulted and valid. Its mode is always nftables, and its nftables section is the one in
	// effect, also if the file was written for another mode.
	Kube v1alpha1.KubeProxyConfiguration
	// MinSyncPeriodSet reports whether Kube.NFTables.MinSyncPeriod was configured. If not, that field is 0
	// and the proxier chooses: kube-proxy's default of 1s fits the cost of a sync of kube-proxy.
	MinSyncPeriodSet bool

	ConfigFile    string // file that Kube was read from; empty if it came from flags
	WriteConfigTo string // write the configuration to this file and exit
	Master        string // URL of the API server, overrides the one in the kubeconfig
	InitOnly      bool   // do what needs full privileges and exit
	SysctlDir     string // /proc/sys/net, or where it is mounted
	Cleanup       bool   // remove the tables and exit

	// Scheduler is that of Services that name none: ipvs.scheduler, if the file was written for mode ipvs.
	Scheduler service.Scheduler

	Source string // file or directory of manifests to read instead of an API server
	DryRun bool   // print the ruleset instead of programming it

	ConnectionCounters string // which connections the kernel counts: one of the Count constants

	AllowedExternalCIDRs []string // ranges of external and load-balancer IPs that are programmed; empty: all

	OwnTables bool // own the tables, if the kernel supports that
	TakeOver  bool // remove kube-proxy's rules from the kernel, once nftproxy has programmed its own

	loaded  []byte   // content of ConfigFile when it was read
	options *Options // that Complete made this from
}

// NodeName returns the name of the Node that this process runs on, in lower case: the hostname override, or
// else the environment variable NODE_NAME, or else the name of the host.
func (c *Config) NodeName() (string, error) {
	name := strings.TrimSpace(c.Kube.HostnameOverride)
	if name == "" {
		name = strings.TrimSpace(os.Getenv("NODE_NAME"))
	}
	if name == "" {
		host, err := os.Hostname()
		if err != nil {
			return "", fmt.Errorf("node name: %w", err)
		}
		name = strings.TrimSpace(host)
	}
	if name == "" {
		return "", errors.New("node name: --hostname-override, NODE_NAME and the host's name are empty")
	}
	return strings.ToLower(name), nil
}

// NodeIP returns bindAddress, which replaces the Node's primary address of its IP family and makes that
// family the primary one. It returns the zero Addr if bindAddress is unspecified, which is the default.
func (c *Config) NodeIP() netip.Addr {
	addr, err := address.ParseAddr(c.Kube.BindAddress)
	if err != nil || addr.IsUnspecified() {
		return netip.Addr{}
	}
	return addr
}

// ClusterCIDRs returns the pod CIDRs of the cluster, at most one per IP family. It returns nil unless
// detectLocalMode is ClusterCIDR, because no other mode uses them.
func (c *Config) ClusterCIDRs() []netip.Prefix {
	if c.Kube.DetectLocalMode != LocalModeClusterCIDR || c.Kube.ClusterCIDR == "" {
		return nil
	}
	var prefixes []netip.Prefix
	for s := range strings.SplitSeq(c.Kube.ClusterCIDR, ",") {
		prefixes = append(prefixes, mustPrefix(s))
	}
	return prefixes
}

// NodePortAddresses returns which addresses of the node nodePorts are served on: the primary one of each IP
// family if primary is true, and those within one of prefixes, which are sorted. As in kube-proxy, a list of
// CIDRs of one family does not restrict the other one, for which prefixes has all addresses. Whether a list
// with "primary" restricts a family depends on the Node: see package desired. Loopback ranges are returned as
// given; see LoopbackAddrs.
func (c *Config) NodePortAddresses() (primary bool, prefixes []netip.Prefix) {
	for _, s := range c.Kube.NodePortAddresses {
		switch s {
		case nodePortsPrimary:
			primary = true
		case nodePortsAll:
			prefixes = append(prefixes, mustPrefix("0.0.0.0/0"), mustPrefix("::/0"))
		case nodePortsLocalhost:
			prefixes = append(prefixes, mustPrefix("127.0.0.0/8"), mustPrefix("::1/128"))
		default:
			prefixes = append(prefixes, mustPrefix(s))
		}
	}
	if !primary {
		for _, whole := range []netip.Prefix{mustPrefix("0.0.0.0/0"), mustPrefix("::/0")} {
			sameFamily := func(p netip.Prefix) bool { return p.Addr().Is4() == whole.Addr().Is4() }
			if !slices.ContainsFunc(prefixes, sameFamily) {
				prefixes = append(prefixes, whole)
			}
		}
	}
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	return primary, slices.Compact(prefixes)
}

// LoopbackAddrs returns the loopback addresses on which nodePorts are served: as in kube-proxy 127.0.0.1 if
// nodePortAddresses has a loopback range of IPv4, whichever it is, and ::1 if it has one of IPv6. 0.0.0.0/0
// and ::/0 are not loopback ranges.
func (c *Config) LoopbackAddrs() (addrs []netip.Addr) {
	if !c.localhostNodePorts() {
		return nil
	}
	_, prefixes := c.NodePortAddresses()
	for _, addr := range []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()} {
		if slices.ContainsFunc(prefixes, func(p netip.Prefix) bool {
			return p.Addr().Is4() == addr.Is4() && p.Addr().IsLoopback()
		}) {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// noInterface is the name of no interface: the kernel rejects a colon (dev_valid_name).
const noInterface = ":"

// PodInterface returns the interface on which traffic of pods arrives: a name, or a prefix followed by *. It
// returns "" unless detectLocalMode uses interfaces. A name that no interface can have, which kube-proxy
// accepts, becomes one that the rules can have: no traffic is that of a pod.
func (c *Config) PodInterface() string {
	switch c.Kube.DetectLocalMode {
	case LocalModeBridgeInterface:
		// As in kube-proxy's script for nft, a * at the end stands for any rest of the name.
		name, any := strings.CutSuffix(c.Kube.DetectLocal.BridgeInterface, "*")
		return interfaceMatch(name, any)
	case LocalModeInterfaceNamePrefix:
		return interfaceMatch(c.Kube.DetectLocal.InterfaceNamePrefix, true)
	}
	return ""
}

// interfaceMatch returns what matches an interface name, or with prefix, all names that begin with it. The
// kernel has 15 bytes for a name, and rejects blanks, "/" and ":". The other characters have a meaning of
// their own in the strings of an nft script.
func interfaceMatch(name string, prefix bool) string {
	const most = 15
	bad := func(r rune) bool { return r <= ' ' || strings.ContainsRune("/:\"\\*\x7f", r) }
	switch {
	case name == "" || len(name) > most || strings.ContainsFunc(name, bad):
		return noInterface
	case prefix && len(name) < most:
		return name + "*"
	}
	return name // only one name of 15 bytes begins with 15 bytes
}

// AllowedExternal returns the ranges of external and load-balancer IPs that are programmed, sorted. None
// stands for all addresses.
func (c *Config) AllowedExternal() (prefixes []netip.Prefix) {
	for _, s := range c.AllowedExternalCIDRs {
		prefixes = append(prefixes, mustPrefix(s))
	}
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	return slices.Compact(prefixes)
}

// MasqueradeMark returns the bit of the packet mark that requests masquerading.
func (c *Config) MasqueradeMark() uint32 {
	return 1 << *c.Kube.NFTables.MasqueradeBit
}

// MasqueradeAll reports whether all traffic to ClusterIPs is masqueraded.
func (c *Config) MasqueradeAll() bool {
	return c.Kube.NFTables.MasqueradeAll
}
