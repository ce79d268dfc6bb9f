package config

import (
	"time"

	"github.com/spf13/pflag"
)

// ledger returns every setting there is: each field of KubeProxyConfiguration and each flag. The defaults,
// the validation, the flags with their help, the warnings at startup and docs/configuration.md come from it,
// and TestLedger finds a field or a flag without a row.
func ledger() []group {
	return []group{
		{"general", generalSettings()},
		{"API server", clientSettings()},
		{"rules", rulesetSettings()},
		{"host", hostSettings()},
		{"serving", servingSettings()},
		{"other kube-proxy", otherSettings()},
		{logs, loggingSettings()},
	}
}

// logs is the group of the flags that component-base adds.
const logs = "logs"

func generalSettings() []setting {
	return []setting{
		{flag: "config", variable: func(o *Options) any { return &o.config.ConfigFile },
			help: "Configuration file as for kube-proxy " +
				"(KubeProxyConfiguration, kubeproxy.config.k8s.io/v1alpha1)."},
		{flag: "write-config-to", variable: func(o *Options) any { return &o.config.WriteConfigTo },
			help: "Write the complete configuration to this file and exit."},
		{flag: "init-only", variable: func(o *Options) any { return &o.config.InitOnly },
			help: "Set the sysctls of connection tracking and exit, with an error if one could not be set. " +
				"After that CAP_NET_ADMIN is enough."},
		{flag: "cleanup", variable: func(o *Options) any { return &o.config.Cleanup },
			help:    "Remove nftproxy's tables from the kernel and exit.",
			differs: "Leaves the rules of kube-proxy in place."},
		{field: "hostnameOverride", flag: "hostname-override", overrides: true,
			variable: func(o *Options) any { return &o.hostnameOverride },
			help:     "Name of the Node that nftproxy runs on.",
			differs: "If neither flag nor file sets it, nftproxy uses $NODE_NAME, or else the name of " +
				"the host."},
		{flag: "source", own: true, variable: func(o *Options) any { return &o.config.Source },
			help: "Read the objects from this file or directory of Kubernetes manifests (YAML or JSON) " +
				"instead of from an API server."},
		{flag: "dry-run", own: true, variable: func(o *Options) any { return &o.config.DryRun },
			help: "Print the ruleset as an nft script and exit. Needs no privileges."},
		{flag: "own-tables", own: true, def: true,
			variable: func(o *Options) any { return &o.config.OwnTables },
			help: "Own the tables in the kernel, if it supports that (Linux 6.9 and later): other programs " +
				"cannot change them, and nft flush ruleset leaves them in place."},
		{flag: "take-over", own: true, variable: func(o *Options) any { return &o.config.TakeOver },
			help: "Remove the rules that kube-proxy left in the kernel, once nftproxy has programmed " +
				"the node and no kube-proxy runs on it."},
	}
}

func clientSettings() []setting {
	return []setting{
		{field: "clientConnection.kubeconfig", flag: "kubeconfig",
			help: "Kubeconfig file. Default: the service account of the pod."},
		{flag: "master", variable: func(o *Options) any { return &o.config.Master },
			help: "URL of the API server. Overrides the one in the kubeconfig."},
		{field: "clientConnection.acceptContentTypes"},
		{field: "clientConnection.contentType", flag: "kube-api-content-type",
			def: "application/vnd.kubernetes.protobuf", help: "Content type of requests to the API server."},
		{field: "clientConnection.qps", flag: "kube-api-qps", def: 5,
			help: "Requests per second to the API server."},
		{field: "clientConnection.burst", flag: "kube-api-burst", def: 10, valid: notNegative(),
			help: "Maximum number of requests to the API server in a burst."},
	}
}

func rulesetSettings() []setting {
	return []setting{
		{field: "detectLocalMode", flag: "detect-local-mode", overrides: true, valid: oneOf(LocalModes()...),
			def: LocalModeClusterCIDR, late: true,
			help: "How to recognize traffic from the pods of this cluster. Default: ClusterCIDR."},
		{field: "clusterCIDR", flag: "cluster-cidr", overrides: true, valid: clusterCIDR(),
			help: "Addresses of the pods of this cluster, for --detect-local-mode ClusterCIDR."},
		{field: "detectLocal.bridgeInterface", flag: "pod-bridge-interface", overrides: true,
			valid: interfaceName(LocalModeBridgeInterface),
			help:  "Bridge that the pods are attached to, for --detect-local-mode BridgeInterface."},
		{field: "detectLocal.interfaceNamePrefix", flag: "pod-interface-name-prefix", overrides: true,
			valid: interfaceName(LocalModeInterfaceNamePrefix),
			help: "Prefix of the names of the pods' interfaces on the node, for --detect-local-mode " +
				"InterfaceNamePrefix."},
		{field: "nodePortAddresses", flag: "nodeport-addresses", overrides: true, valid: nodePortAddresses(),
			def: []string{nodePortsPrimary}, late: true,
			help: "Addresses of the node that nodePorts are served on. Default: primary, the addresses " +
				"of the Node object.",
			differs: "With localhost or a loopback CIDR, nodePorts of TCP are served on 127.0.0.1 and ::1 " +
				"without a feature gate. Link-local addresses serve them only if a link-local CIDR is given."},
		{flag: "allowed-external-cidrs", own: true,
			variable: func(o *Options) any { return &o.config.AllowedExternalCIDRs },
			help: "Program external IPs and load-balancer IPs of Services only if one of these CIDRs " +
				"contains them; the Event NotProgrammed reports the others. Default: all."},
		{flag: "connection-counters", own: true, def: CountAuto, value: counterFlag,
			variable: func(o *Options) any { return &o.config.ConnectionCounters },
			help: "Count new connections in the kernel. services: those to each port of a Service, for the " +
				"metric nftproxy_service_connections_total. endpoints: also those to each endpoint, for nft. " +
				"auto: those to endpoints while their counters take at most 32 MiB and an eighth of the memory " +
				"limit; one takes 64 bytes, and 16 for each CPU. off: none."},
		{field: "nftables.masqueradeAll", flag: "masquerade-all", overrides: true,
			help: "Masquerade all traffic to ClusterIPs."},
		{field: "nftables.masqueradeBit", flag: "iptables-masquerade-bit", overrides: true,
			mode: ModeNFTables, def: 14, valid: within(0, 31),
			help: "Bit of the packet mark that requests masquerading."},
		{field: "nftables.syncPeriod", flag: "iptables-sync-period", mode: ModeNFTables,
			def: 30 * time.Second, valid: positive(),
			help: "/healthz and /livez fail if a change has not been programmed for twice this period.",
			differs: "It sets nothing else: nftproxy syncs when something changes, and checks for drift " +
				"and retries at intervals of its own."},
		{field: "nftables.minSyncPeriod", flag: "iptables-min-sync-period", mode: ModeNFTables,
			valid: minSyncPeriod("nftables.syncPeriod"),
			help:  "Minimum time between two syncs; 0 is no minimum.",
			differs: "If it is not set (in a file: if it is 0), the time adapts to how long a sync takes " +
				"and is at least 10ms; kube-proxy's default is 1s."},
	}
}

func hostSettings() []setting {
	return []setting{
		{flag: "sysctl-dir", own: true, def: "/proc/sys/net",
			variable: func(o *Options) any { return &o.config.SysctlDir },
			help: "Directory to set sysctls in. In a container without full privileges /proc/sys is " +
				"read-only: mount /proc/sys/net of the host at another path."},
		{field: "conntrack.maxPerCore", flag: "conntrack-max-per-core", def: 32 * 1024, valid: notNegative(),
			help: "Maximum number of tracked connections per CPU core; 0 keeps the kernel's limit."},
		{field: "conntrack.min", flag: "conntrack-min", def: 128 * 1024, valid: notNegative(),
			help: "Lower bound for the maximum number of tracked connections, unless " +
				"--conntrack-max-per-core is 0."},
		{field: "conntrack.tcpEstablishedTimeout", flag: "conntrack-tcp-timeout-established",
			def: 24 * time.Hour, valid: notNegative(),
			help: "Timeout of idle established TCP connections; 0 keeps the kernel's value."},
		// Half-closed connections outlive the FIN_WAIT timeouts of common servers, so that their ports are
		// not used for another translation while the peer still knows them.
		{field: "conntrack.tcpCloseWaitTimeout", flag: "conntrack-tcp-timeout-close-wait",
			def: time.Hour, valid: notNegative(),
			help: "Timeout of TCP connections in CLOSE_WAIT; 0 keeps the kernel's value."},
		{field: "conntrack.udpTimeout", flag: "conntrack-udp-timeout", valid: notNegative(),
			help: "Timeout of UDP connections without replies; 0 keeps the kernel's value."},
		{field: "conntrack.udpStreamTimeout", flag: "conntrack-udp-timeout-stream", valid: notNegative(),
			help: "Timeout of UDP connections with replies; 0 keeps the kernel's value."},
		{field: "conntrack.tcpBeLiberal", flag: "conntrack-tcp-be-liberal",
			help: "Accept TCP packets outside of the window as valid (nf_conntrack_tcp_be_liberal)."},
		{field: "oomScoreAdj", flag: "oom-score-adj", def: -999, valid: within(-1000, 1000),
			help: "oom_score_adj of this process."},
	}
}

func servingSettings() []setting {
	ip := func(to *string) pflag.Value { return addressValue{to} }
	ipPort := func(to *string) pflag.Value { return addressPortValue{to} }
	return []setting{
		{field: "bindAddress", flag: "bind-address", def: "0.0.0.0", valid: ipAddress(), value: ip,
			help: "Primary IP address of the node, if it is not the one of its Node object. " +
				"nftproxy does not listen on it."},
		{field: "healthzBindAddress", flag: "healthz-bind-address", valid: addressAndPort(), value: ipPort,
			def: "0.0.0.0", help: "IP address and port to serve /healthz and /livez on; an empty flag " +
				"turns it off. Default if bindAddress is IPv6: [::]:10256."},
		{field: "healthzBindAddress", flag: "healthz-port", deprecated: "use --healthz-bind-address",
			def: healthzPort, variable: func(o *Options) any { return &o.healthzPort },
			help: "Port of --healthz-bind-address if that has none; 0 turns the server off."},
		{field: "metricsBindAddress", flag: "metrics-bind-address", valid: addressAndPort(), value: ipPort,
			def: "127.0.0.1", help: "IP address and port to serve /metrics on; an empty flag turns it off. " +
				"Default if bindAddress is IPv6: [::1]:10249."},
		{field: "metricsBindAddress", flag: "metrics-port", deprecated: "use --metrics-bind-address",
			def: metricsPort, variable: func(o *Options) any { return &o.metricsPort },
			help: "Port of --metrics-bind-address if that has none; 0 turns the server off."},
		{field: "bindAddressHardFail", flag: "bind-address-hard-fail",
			help: "Exit if nftproxy cannot listen on one of its addresses."},
		{field: "enableProfiling", flag: "profiling", help: "Serve /debug/pprof next to /metrics."},
	}
}

// otherSettings have no effect, or hardly any. nftproxy accepts them so that kube-proxy's configuration
// works.
func otherSettings() []setting {
	const (
		ipvs         = "nftproxy does not use IPVS"
		linux        = "nftproxy runs on Linux only"
		syncs        = "nftproxy uses the nftables section"
		masquerading = "Has an effect only if mode is not nftables and the nftables section is empty."
	)
	return []setting{
		{field: "mode", flag: "proxy-mode", valid: oneOf(ModeNFTables, ModeIPTables, ModeIPVS, ""),
			differs: "nftproxy always programs nftables."},
		{field: "featureGates", flag: "feature-gates", def: map[string]bool{}, valid: featureGates(),
			differs: "Only AllowServiceExternalIPs, ComponentFlagz, ComponentStatusz, ContextualLogging, " +
				"KubeProxyNFTablesLocalhostNodePorts, LoggingAlphaOptions and LoggingBetaOptions have an effect. " +
				"KubeProxyNFTablesLocalhostNodePorts is on unless it is set to false. nftproxy accepts the other " +
				"gates of kube-proxy."},
		{field: "configSyncPeriod", flag: "config-sync-period", def: 15 * time.Minute, valid: positive(),
			noEffect: "nftproxy watches the API server and does not resync periodically"},
		{field: "showHiddenMetricsForVersion", flag: "show-hidden-metrics-for-version",
			valid: oneOf("1.36", ""), noEffect: "nftproxy has no hidden metrics"},
		{field: "portRange", noEffect: "kube-proxy does not use it either"},
		{field: "windowsRunAsService", noEffect: linux},
		{field: "iptables.masqueradeBit", def: 14, valid: within(0, 31), differs: masquerading},
		{field: "iptables.masqueradeAll", differs: masquerading},
		{field: "iptables.localhostNodePorts", flag: "iptables-localhost-nodeports", def: true,
			noEffect: "nodePorts are served on loopback addresses if nodePortAddresses has localhost"},
		{field: "iptables.syncPeriod", def: 30 * time.Second, mode: ModeIPTables, valid: positive(),
			noEffect: syncs},
		{field: "iptables.minSyncPeriod", def: time.Second, mode: ModeIPTables,
			valid: minSyncPeriod("iptables.syncPeriod"), noEffect: syncs},
		{field: "ipvs.syncPeriod", flag: "ipvs-sync-period", def: 30 * time.Second, mode: ModeIPVS,
			valid: positive(), noEffect: ipvs},
		{field: "ipvs.minSyncPeriod", flag: "ipvs-min-sync-period", mode: ModeIPVS,
			valid: minSyncPeriod("ipvs.syncPeriod"), noEffect: ipvs},
		{field: "ipvs.scheduler", flag: "ipvs-scheduler",
			differs: "If mode is ipvs: rr, wrr, mh or sh is the scheduler of Services that have no annotation " +
				"nftproxy.io/scheduler. Otherwise, and with another scheduler, connections choose at random."},
		{field: "ipvs.excludeCIDRs", flag: "ipvs-exclude-cidrs", mode: ModeIPVS, valid: cidrs(),
			noEffect: ipvs},
		{field: "ipvs.strictARP", flag: "ipvs-strict-arp", noEffect: ipvs},
		{field: "ipvs.tcpTimeout", flag: "ipvs-tcp-timeout", mode: ModeIPVS, valid: notNegative(),
			noEffect: ipvs},
		{field: "ipvs.tcpFinTimeout", flag: "ipvs-tcpfin-timeout", mode: ModeIPVS, valid: notNegative(),
			noEffect: ipvs},
		{field: "ipvs.udpTimeout", flag: "ipvs-udp-timeout", mode: ModeIPVS, valid: notNegative(),
			noEffect: ipvs},
		{field: "winkernel.networkName", noEffect: linux},
		{field: "winkernel.sourceVip", noEffect: linux},
		{field: "winkernel.enableDSR", noEffect: linux},
		{field: "winkernel.rootHnsEndpointName", noEffect: linux},
		{field: "winkernel.forwardHealthCheckVip", noEffect: linux},
	}
}

// loggingSettings are component-base's, which also has their defaults, validation and help. The flags
// override the file, as in kube-proxy.
func loggingSettings() []setting {
	return []setting{
		{field: "logging.format", flag: "logging-format"},
		{field: "logging.flushFrequency", flag: "log-flush-frequency"},
		{field: "logging.verbosity", flag: "v"},
		{field: "logging.vmodule", flag: "vmodule"},
		{field: "logging.options.text.splitStream", flag: "log-text-split-stream"},
		{field: "logging.options.text.infoBufferSize", flag: "log-text-info-buffer-size"},
		{field: "logging.options.json.splitStream", flag: "log-json-split-stream"},
		{field: "logging.options.json.infoBufferSize", flag: "log-json-info-buffer-size"},
	}
}
