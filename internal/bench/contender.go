package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// contender is what is measured: a proxy, the floor, or what is asked in place of a proxy.
type contender struct {
	name    string // as in the table
	version string
	most    int // Services with which it is measured; 0: any number
	args    []string
}

// floorName is the contender that is no proxy: the floor.
const floorName = "floor"

// configText is what every proxy is configured with. The pause between two syncs is the shortest that kube-proxy
// can be told; what its default of a second saves is another matter.
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

// contenders returns what is compared: the floor, the proxies that there are binaries of, and kube-proxy's iptables
// mode where iptables writes to nftables, whose generation tells of its commits.
func contenders(o options, dir string, c *cluster) ([]contender, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	list := []contender{{name: floorName, args: []string{self, "floor", "-kubeconfig", c.plane.AdminKubeconfig}}}
	const adaptive = "0s" // nftproxy's default
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
		who.version, who.args = strings.TrimSpace(string(version)), []string{p.binary, "--config", config, "--v=1"}
		list = append(list, who)
	}
	return list, nil
}

func iptablesIsNft() bool {
	version, err := exec.Command("iptables", "--version").Output()
	return err == nil && strings.Contains(string(version), "nf_tables")
}

// fits tells whether the contender is measured with that many Services.
func (c contender) fits(services int) bool { return c.most == 0 || services <= c.most }
