package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// contender is the subject of measurements: a proxy, the floor, or a node without a proxy.
type contender struct {
	name    string // in tables and in bench.json
	version string
	most    int // maximum number of Services; 0 means no limit
	args    []string
}

// floorName is the name of the floor, which is not a proxy.
const floorName = "floor"

// configText is the configuration of every proxy. minSyncPeriod is the minimum that kube-proxy accepts, and
// not its default of 1s, so that the measurements show the time for a change and not a pause.
const configText = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: %s
clientConnection: {kubeconfig: %q}
hostnameOverride: %s
clusterCIDR: 10.244.0.0/16,fd00:10:244::/56
detectLocalMode: ClusterCIDR
metricsBindAddress: 127.0.0.1:10249
enableProfiling: true
conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
nftables: {minSyncPeriod: %[4]s, syncPeriod: 1h}
iptables: {minSyncPeriod: %[4]s, syncPeriod: 1h}
`

// contenders returns the floor and the proxies with a binary. It includes kube-proxy's iptables mode only
// where iptables uses nftables, because bench observes commits through the generation of nftables.
func contenders(o options, dir string, c *cluster) ([]contender, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	list := []contender{{name: floorName, args: []string{self, "floor", "-kubeconfig", c.plane.AdminKubeconfig}}}
	const adaptive = "0s" // the default of nftproxy
	for _, p := range []struct{ name, binary, mode, minSync string }{
		{"nftproxy", o.nftproxy, "nftables", adaptive},
		{"before", o.before, "nftables", adaptive},
		{"kube-proxy", o.kubeProxy, "nftables", "1ms"},
		{"kube-proxy iptables", o.kubeProxy, "iptables", "1ms"},
	} {
		if p.binary == "" {
			continue
		}
		who := contender{name: p.name}
		switch {
		case p.mode == "iptables" && (o.iptables == 0 || !iptablesIsNft()):
			continue
		case p.mode == "iptables":
			who.most = o.iptables
		case p.name == "kube-proxy":
			who.most = o.most
		}
		version, err := exec.Command(p.binary, "--version").Output()
		if err != nil {
			return nil, fmt.Errorf("%s --version: %w", p.binary, err)
		}
		config := filepath.Join(dir, p.name+".yaml")
		text := fmt.Sprintf(configText, p.mode, c.plane.AdminKubeconfig, lab.NodeName, p.minSync)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			return nil, err
		}
		who.version = strings.TrimSpace(string(version))
		who.args = []string{p.binary, "--config", config, "--v=1"}
		list = append(list, who)
	}
	return list, nil
}

func iptablesIsNft() bool {
	version, err := exec.Command("iptables", "--version").Output()
	return err == nil && strings.Contains(string(version), "nf_tables")
}

// fits reports whether the contender is measured with that number of Services.
func (c contender) fits(services int) bool { return c.most == 0 || services <= c.most }
