// Package config builds the one Config that nftproxy runs with, from kube-proxy's
// own configuration file (KubeProxyConfiguration, kubeproxy.config.k8s.io/v1alpha1)
// and kube-proxy's own flags, with the defaults and the validation of kube-proxy 1.37.
//
// As with kube-proxy, a file given with --config is what counts and the flags that
// stand for its fields are passed over, except --hostname-override and the logging
// flags, which win over the file. In one thing this differs from kube-proxy: the
// flags that the ruleset depends on (--cluster-cidr, --detect-local-mode,
// --pod-bridge-interface, --pod-interface-name-prefix, --nodeport-addresses,
// --masquerade-all, --iptables-masquerade-bit) also win over the file when they are
// given explicitly, so that a ruleset can be tried out beside the file of a running
// cluster. Whatever does not take effect as written is returned as a warning.
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
)

// What mode and detectLocalMode may be.
const (
	ModeNFTables v1alpha1.ProxyMode = "nftables"
	ModeIPTables v1alpha1.ProxyMode = "iptables"
	ModeIPVS     v1alpha1.ProxyMode = "ipvs"

	LocalModeClusterCIDR         v1alpha1.LocalMode = "ClusterCIDR"
	LocalModeNodeCIDR            v1alpha1.LocalMode = "NodeCIDR"
	LocalModeBridgeInterface     v1alpha1.LocalMode = "BridgeInterface"
	LocalModeInterfaceNamePrefix v1alpha1.LocalMode = "InterfaceNamePrefix"
)

// The keywords of nodePortAddresses. They mix with each other and with CIDRs.
const (
	nodePortsPrimary   = "primary"
	nodePortsLocalhost = "localhost"
	nodePortsAll       = "all"
)

// Config is everything nftproxy can be told: kube-proxy's configuration, and what
// only flags say. Options.Complete returns it complete and valid; the methods of a
// Config that did not come from there may panic.
type Config struct {
	// Kube is defaulted and valid. Its mode is always nftables, and its nftables
	// section is the one in effect whatever mode the file was written for.
	Kube v1alpha1.KubeProxyConfiguration
	// MinSyncPeriodSet says that Kube.NFTables.MinSyncPeriod was asked for. If not,
	// that field is 0 and the proxier chooses: kube-proxy's default of 1s is made
	// for what a sync costs kube-proxy.
	MinSyncPeriodSet bool

	ConfigFile    string // the file Kube came from; empty if it came from flags
	WriteConfigTo string // write the configuration to this file and exit
	Master        string // URL of the API server, wins over the kubeconfig's
	InitOnly      bool   // do what needs full privileges, then exit
	Cleanup       bool   // take the tables away, then exit

	Source string // file or directory of manifests instead of an API server
	DryRun bool   // print the ruleset instead of programming it

	OwnTables bool // own the tables, where the kernel can
	TakeOver  bool // remove what kube-proxy left in the kernel, once ours is there

	loaded []byte // content of ConfigFile as it was read
}

// NodeName is the name of the Node this process runs on: the hostname override (flag
// before file), else the environment's NODE_NAME, else the host's name; in lower case.
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
		return "", errors.New("node name: neither --hostname-override, nor NODE_NAME, nor the host gives one")
	}
	return strings.ToLower(name), nil
}

// NodeIP is the address that bindAddress puts in place of the Node's primary address
// of its family, and whose family is then the primary one. It is invalid (the zero
// Addr) when bindAddress is unspecified, as it is by default.
func (c *Config) NodeIP() netip.Addr {
	addr, err := address.ParseAddr(c.Kube.BindAddress)
	if err != nil || addr.IsUnspecified() {
		return netip.Addr{}
	}
	return addr
}

// ClusterCIDRs are the ranges of the pods of the cluster, at most one a family, for
// detectLocalMode ClusterCIDR; nil in any other mode, where they are not used.
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

// NodePortAddresses says on which of the node's addresses nodePorts are served: on
// its primary address of each family if primary, and on those that lie in one of
// prefixes (sorted). As with kube-proxy, a list of CIDRs that names only one family
// does not limit the other, which is then there with its whole range; a list with
// "primary" does limit both. Loopback ranges are returned as they were given, but
// nodePorts are never served on loopback addresses, whatever range contains them.
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

// MasqueradeMark is the bit of the packet mark that asks for masquerading.
func (c *Config) MasqueradeMark() uint32 {
	return 1 << *c.Kube.NFTables.MasqueradeBit
}

// MasqueradeAll says whether all traffic to ClusterIPs is masqueraded.
func (c *Config) MasqueradeAll() bool {
	return c.Kube.NFTables.MasqueradeAll
}
