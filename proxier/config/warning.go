package config

import (
	"fmt"
	"maps"
	"slices"

	"k8s.io/kube-proxy/config/v1alpha1"

	"github.com/nftproxy/nftproxy/proxier/address"
)

func modeWarning(mode v1alpha1.ProxyMode) string {
	return fmt.Sprintf("mode %q is kube-proxy's: nftproxy always programs nftables; "+
		"in that mode nodePortAddresses defaults to %q", mode, nodePortsPrimary)
}

// setting is a field of the file, or the flag that stands for it.
type setting struct {
	field, flag string
	set         bool // to something else than the default
}

// withoutEffect returns a warning for each field of the defaulted k that is set and
// has no meaning here. adopted says that the iptables section's masquerading is
// in effect. Field names are used for what came from flags too, with the flag added.
func withoutEffect(k *v1alpha1.KubeProxyConfiguration, adopted bool) []string {
	settings := slices.Concat(iptablesSettings(k, adopted), ipvsSettings(k), otherSettings(k))
	var warnings []string
	for _, s := range settings {
		if !s.set {
			continue
		}
		name := s.field
		if s.flag != "" {
			name += " (--" + s.flag + ")"
		}
		warnings = append(warnings, name+" has no effect in nftproxy")
	}
	for _, gate := range slices.Sorted(maps.Keys(k.FeatureGates)) {
		if !isLogFeature(gate) {
			warnings = append(warnings, fmt.Sprintf("featureGates.%s (--feature-gates) has no effect in nftproxy", gate))
		}
	}
	return warnings
}

// loopbackWarnings are for the loopback ranges of nodePortAddresses.
func loopbackWarnings(k *v1alpha1.KubeProxyConfiguration) (warnings []string) {
	for i, s := range k.NodePortAddresses {
		p, err := address.ParsePrefix(s)
		if s == nodePortsLocalhost || err == nil && p.Addr().IsLoopback() {
			warnings = append(warnings, fmt.Sprintf(
				"nodePortAddresses[%d] %s has no effect: nodePorts are never served on loopback", i, s))
		}
	}
	return warnings
}

func iptablesSettings(k *v1alpha1.KubeProxyConfiguration, adopted bool) []setting {
	t := &k.IPTables
	return []setting{
		{"iptables.masqueradeBit", "", !adopted && *t.MasqueradeBit != defaultMasqueradeBit},
		{"iptables.masqueradeAll", "", !adopted && t.MasqueradeAll},
		{"iptables.localhostNodePorts", "iptables-localhost-nodeports", !*t.LocalhostNodePorts},
		{"iptables.syncPeriod", "", t.SyncPeriod.Duration != defaultSyncPeriod},
		{"iptables.minSyncPeriod", "", t.MinSyncPeriod.Duration != defaultIPTablesMinSync},
	}
}

func ipvsSettings(k *v1alpha1.KubeProxyConfiguration) []setting {
	v := &k.IPVS
	return []setting{
		{"ipvs.syncPeriod", "ipvs-sync-period", v.SyncPeriod.Duration != defaultSyncPeriod},
		{"ipvs.minSyncPeriod", "ipvs-min-sync-period", v.MinSyncPeriod.Duration != 0},
		{"ipvs.scheduler", "ipvs-scheduler", v.Scheduler != ""},
		{"ipvs.excludeCIDRs", "ipvs-exclude-cidrs", len(v.ExcludeCIDRs) != 0},
		{"ipvs.strictARP", "ipvs-strict-arp", v.StrictARP},
		{"ipvs.tcpTimeout", "ipvs-tcp-timeout", v.TCPTimeout.Duration != 0},
		{"ipvs.tcpFinTimeout", "ipvs-tcpfin-timeout", v.TCPFinTimeout.Duration != 0},
		{"ipvs.udpTimeout", "ipvs-udp-timeout", v.UDPTimeout.Duration != 0},
	}
}

func otherSettings(k *v1alpha1.KubeProxyConfiguration) []setting {
	w := &k.Winkernel
	return []setting{
		{"winkernel.networkName", "", w.NetworkName != ""},
		{"winkernel.sourceVip", "", w.SourceVip != ""},
		{"winkernel.enableDSR", "", w.EnableDSR},
		{"winkernel.rootHnsEndpointName", "", w.RootHnsEndpointName != ""},
		{"winkernel.forwardHealthCheckVip", "", w.ForwardHealthCheckVip},
		{"windowsRunAsService", "", k.WindowsRunAsService},
		{"portRange", "", k.PortRange != ""},
		{"showHiddenMetricsForVersion", "show-hidden-metrics-for-version", k.ShowHiddenMetricsForVersion != ""},
	}
}
