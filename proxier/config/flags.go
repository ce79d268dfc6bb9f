package config

import (
	"fmt"
	"slices"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cliflag "k8s.io/component-base/cli/flag"
	logsapi "k8s.io/component-base/logs/api/v1"
)

// AddFlags adds kube-proxy's flags to fs, and nftproxy's own, and returns them in
// groups, for a help that people can read. It is for one FlagSet.
func (o *Options) AddFlags(fs *pflag.FlagSet) cliflag.NamedFlagSets {
	var groups cliflag.NamedFlagSets
	o.addGeneralFlags(groups.FlagSet("general"))
	for _, group := range []struct {
		name string
		add  func(*pflag.FlagSet)
	}{
		{"API server", o.addClientFlags},
		{"rules", o.addRulesetFlags},
		{"host", o.addHostFlags},
		{"serving", o.addServingFlags},
		{"kube-proxy's other", o.addForeignFlags},
	} {
		set := groups.FlagSet(group.name)
		group.add(set)
		o.settings.AddFlagSet(set)
	}
	ruleset := rulesetFlags()
	o.settings.VisitAll(func(f *pflag.Flag) {
		if slices.ContainsFunc(ruleset, func(r rulesetFlag) bool { return r.flag == f.Name }) {
			f.Usage += " Wins over --config."
		} else {
			f.Usage += " Passed over with --config."
		}
	})
	groups.FlagSet("API server").StringVar(&o.master, "master", "", "URL of the Kubernetes API server; wins over the one of the kubeconfig.")
	logsapi.AddFlags(&o.kube.Logging, o.logging)
	groups.FlagSet("logs").AddFlagSet(o.logging)
	for _, name := range groups.Order {
		fs.AddFlagSet(groups.FlagSets[name])
	}
	return groups
}

// addGeneralFlags adds those that no field of the file stands for.
func (o *Options) addGeneralFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.source, "source", "", "File or directory of Kubernetes manifests (YAML or JSON) to take objects from instead of an API server.")
	fs.BoolVar(&o.dryRun, "dry-run", false, "Print the ruleset as an nft script and exit. Needs no privileges.")

	fs.BoolVar(&o.takeOver, "take-over", false, "Remove what kube-proxy left in the kernel, once nftproxy has programmed the node and no kube-proxy runs on it.")
	fs.BoolVar(&o.ownTables, "own-tables", true, "Own the tables in the kernel, where it can (Linux 6.9): nobody else can change them, and flushing the ruleset passes them by.")

	fs.StringVar(&o.configFile, "config", "", "Configuration file (KubeProxyConfiguration, kubeproxy.config.k8s.io/v1alpha1), as kube-proxy has it.")
	fs.StringVar(&o.writeConfigTo, "write-config-to", "", "Write the complete configuration to this file and exit.")
	fs.BoolVar(&o.cleanup, "cleanup", false, "Remove everything that nftproxy has put into the kernel and exit.")
	fs.BoolVar(&o.initOnly, "init-only", false, "Do what must be done with full root privileges and exit. Afterwards CAP_NET_ADMIN is enough.")
	fs.StringVar(&o.hostnameOverride, "hostname-override", "", "Name of the Node this runs on. Default: $NODE_NAME, else the host's name. Wins over --config.")
}

func (o *Options) addClientFlags(fs *pflag.FlagSet) {
	c := &o.kube.ClientConnection
	fs.StringVar(&c.Kubeconfig, "kubeconfig", c.Kubeconfig, "Kubeconfig file. Default: the service account of the pod.")
	fs.StringVar(&c.ContentType, "kube-api-content-type", c.ContentType, "Content type of requests to the API server.")
	fs.Int32Var(&c.Burst, "kube-api-burst", c.Burst, "Requests to the API server that may exceed --kube-api-qps for a moment.")
	fs.Float32Var(&c.QPS, "kube-api-qps", c.QPS, "Requests a second to the API server.")
	fs.DurationVar(&o.kube.ConfigSyncPeriod.Duration, "config-sync-period", o.kube.ConfigSyncPeriod.Duration, "How often objects from the API server are gone through again. Must be greater than 0.")
}

func (o *Options) addServingFlags(fs *pflag.FlagSet) {
	k := &o.kube
	fs.Var(addressValue{&k.BindAddress}, "bind-address", "The node's primary IP address, if not the one its Node object gives. Nothing listens on it.")
	fs.Var(addressPortValue{&k.HealthzBindAddress}, "healthz-bind-address", "IP address and port to serve /healthz and /livez on. Empty turns it off.")
	fs.Var(addressPortValue{&k.MetricsBindAddress}, "metrics-bind-address", "IP address and port to serve /metrics on. Empty turns it off.")
	fs.Int32Var(&o.healthzPort, "healthz-port", o.healthzPort, "Port of --healthz-bind-address if that has none. 0 turns it off.")
	fs.Int32Var(&o.metricsPort, "metrics-port", o.metricsPort, "Port of --metrics-bind-address if that has none. 0 turns it off.")
	_ = fs.MarkDeprecated("healthz-port", "use --healthz-bind-address") // fails only for a name not there
	_ = fs.MarkDeprecated("metrics-port", "use --metrics-bind-address")
	fs.BoolVar(&k.BindAddressHardFail, "bind-address-hard-fail", k.BindAddressHardFail, "Exit if a port cannot be listened on.")
	fs.BoolVar(&k.EnableProfiling, "profiling", k.EnableProfiling, "Serve /debug/pprof beside the metrics.")
}

func (o *Options) addRulesetFlags(fs *pflag.FlagSet) {
	k := &o.kube
	fs.Var(stringValue{(*string)(&k.DetectLocalMode), "LocalMode"}, "detect-local-mode", "How traffic of this cluster's pods is known: ClusterCIDR (default), NodeCIDR, BridgeInterface or InterfaceNamePrefix.")
	fs.StringVar(&k.ClusterCIDR, "cluster-cidr", k.ClusterCIDR, "Range of the cluster's pods, or one of each family with a comma between, for --detect-local-mode ClusterCIDR.")
	fs.StringVar(&k.DetectLocal.BridgeInterface, "pod-bridge-interface", "", "Bridge that pods are attached to, for --detect-local-mode BridgeInterface.")
	fs.StringVar(&k.DetectLocal.InterfaceNamePrefix, "pod-interface-name-prefix", "", "What the names of pods' interfaces begin with, for --detect-local-mode InterfaceNamePrefix.")
	fs.StringSliceVar(&k.NodePortAddresses, "nodeport-addresses", k.NodePortAddresses, "Addresses of the node that serve nodePorts: CIDRs, 'primary' (those of the Node object, the default) and 'all', in any combination. Never loopback.")
	fs.BoolVar(&k.NFTables.MasqueradeAll, "masquerade-all", false, "Masquerade all traffic to ClusterIPs.")
	fs.Int32Var(k.NFTables.MasqueradeBit, "iptables-masquerade-bit", *k.NFTables.MasqueradeBit, "Bit of the packet mark that asks for masquerading, 0 to 31.")
	fs.DurationVar(&k.NFTables.SyncPeriod.Duration, "iptables-sync-period", k.NFTables.SyncPeriod.Duration, "How often the kernel is compared with what it should be. Must be greater than 0.")
	fs.DurationVar(&k.NFTables.MinSyncPeriod.Duration, "iptables-min-sync-period", 0, "Least time between two syncs; 0 is none. Default: adapts to what a sync costs.")
}

func (o *Options) addHostFlags(fs *pflag.FlagSet) {
	c := &o.kube.Conntrack
	fs.Int32Var(c.MaxPerCore, "conntrack-max-per-core", *c.MaxPerCore, "Flows to track for each CPU core; 0 leaves the kernel's limit as it is.")
	fs.Int32Var(c.Min, "conntrack-min", *c.Min, "Flows to track at least, unless --conntrack-max-per-core is 0.")
	for _, timeout := range []struct {
		name, what string
		value      *metav1.Duration
	}{
		{"conntrack-tcp-timeout-established", "idle established TCP connections", c.TCPEstablishedTimeout},
		{"conntrack-tcp-timeout-close-wait", "TCP connections in CLOSE_WAIT", c.TCPCloseWaitTimeout},
		{"conntrack-udp-timeout", "unanswered UDP flows", &c.UDPTimeout},
		{"conntrack-udp-timeout-stream", "answered UDP flows", &c.UDPStreamTimeout},
	} {
		fs.DurationVar(&timeout.value.Duration, timeout.name, timeout.value.Duration,
			fmt.Sprintf("Timeout of %s; 0 leaves it as it is.", timeout.what))
	}
	fs.BoolVar(&c.TCPBeLiberal, "conntrack-tcp-be-liberal", false, "Do not take TCP packets outside of the window for invalid (nf_conntrack_tcp_be_liberal).")
	fs.Int32Var(o.kube.OOMScoreAdj, "oom-score-adj", *o.kube.OOMScoreAdj, "oom_score_adj of this process, -1000 to 1000.")
}

// addForeignFlags adds the flags that are known so that kube-proxy's command line
// works, and that have no effect.
func (o *Options) addForeignFlags(fs *pflag.FlagSet) {
	k := &o.kube
	fs.Var(stringValue{(*string)(&k.Mode), "ProxyMode"}, "proxy-mode", "No effect: nftproxy always programs nftables.")
	fs.Var(cliflag.NewMapStringBool(&k.FeatureGates), "feature-gates", "No effect, but for ContextualLogging, LoggingAlphaOptions and LoggingBetaOptions.")
	const none = "No effect: taken so that kube-proxy's command line works."
	fs.StringVar(&k.ShowHiddenMetricsForVersion, "show-hidden-metrics-for-version", "", none)
	fs.BoolVar(k.IPTables.LocalhostNodePorts, "iptables-localhost-nodeports", *k.IPTables.LocalhostNodePorts, "No effect: nodePorts are never served on loopback.")
	v := &k.IPVS
	fs.DurationVar(&v.SyncPeriod.Duration, "ipvs-sync-period", v.SyncPeriod.Duration, none)
	fs.DurationVar(&v.MinSyncPeriod.Duration, "ipvs-min-sync-period", 0, none)
	fs.StringVar(&v.Scheduler, "ipvs-scheduler", "", none)
	fs.StringSliceVar(&v.ExcludeCIDRs, "ipvs-exclude-cidrs", nil, none)
	fs.BoolVar(&v.StrictARP, "ipvs-strict-arp", false, none)
	fs.DurationVar(&v.TCPTimeout.Duration, "ipvs-tcp-timeout", 0, none)
	fs.DurationVar(&v.TCPFinTimeout.Duration, "ipvs-tcpfin-timeout", 0, none)
	fs.DurationVar(&v.UDPTimeout.Duration, "ipvs-udp-timeout", 0, none)
}
