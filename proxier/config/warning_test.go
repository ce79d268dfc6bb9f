package config

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/kube-proxy/config/v1alpha1"

	"github.com/nftproxy/nftproxy/rules/service"
)

func TestWarnings(t *testing.T) {
	ignored := func(why string, names ...string) (warnings []string) {
		for _, name := range names {
			warnings = append(warnings, name+" has no effect: "+why)
		}
		return warnings
	}
	mode := func(mode v1alpha1.ProxyMode) []string {
		return []string{`mode is "` + string(mode) +
			`", but nftproxy always programs nftables; nodePortAddresses defaults to "primary"`}
	}
	const (
		linux    = "nftproxy runs on Linux only"
		resync   = "nftproxy watches the API server and does not resync periodically"
		gates    = "nftproxy does not have this feature"
		loopback = "nodePorts are served on loopback addresses if nodePortAddresses has localhost"
		gateOff  = "the feature gate KubeProxyNFTablesLocalhostNodePorts is off"
	)
	unused := ignored("mode is nftables, or the nftables section is not empty",
		"iptables.masqueradeBit", "iptables.masqueradeAll")
	localhost := ignored(loopback, "iptables.localhostNodePorts (--iptables-localhost-nodeports)")
	const scheduler = "ipvs.scheduler (--ipvs-scheduler)"
	ipvs := ignored("nftproxy does not use IPVS",
		"ipvs.syncPeriod (--ipvs-sync-period)", "ipvs.minSyncPeriod (--ipvs-min-sync-period)",
		"ipvs.excludeCIDRs (--ipvs-exclude-cidrs)",
		"ipvs.strictARP (--ipvs-strict-arp)", "ipvs.tcpTimeout (--ipvs-tcp-timeout)",
		"ipvs.tcpFinTimeout (--ipvs-tcpfin-timeout)", "ipvs.udpTimeout (--ipvs-udp-timeout)")
	ipvs = append(ipvs, ignored("mode is not ipvs", scheduler)...)
	const nft = header + "mode: nftables\n"
	for _, tt := range []struct {
		name, file string
		args       []string
		want       []string
	}{
		{"mode empty", header, nil, mode("")},
		{"mode iptables", header + "mode: iptables\n", nil, mode("iptables")},
		{"mode ipvs", header + "mode: ipvs\n", nil, mode("ipvs")},
		{"mode flag", "", []string{"--proxy-mode=ipvs"}, mode("ipvs")},
		{"iptables", nft + "iptables: {masqueradeBit: 3, masqueradeAll: true, localhostNodePorts: false, " +
			"syncPeriod: 1m, minSyncPeriod: 2s}\n", nil, append(append(unused, localhost...),
			ignored("nftproxy uses the nftables section",
				"iptables.syncPeriod", "iptables.minSyncPeriod")...)},
		{"iptables as by default", nft + "iptables: {masqueradeBit: 14, localhostNodePorts: true, " +
			"syncPeriod: 30s, minSyncPeriod: 1s}\n", nil, nil},
		{"ipvs", nft + "ipvs: {syncPeriod: 1m, minSyncPeriod: 2s, scheduler: rr, " +
			"excludeCIDRs: [10.0.0.0/8], strictARP: true, tcpTimeout: 1s, tcpFinTimeout: 1s, " +
			"udpTimeout: 1s}\n", nil, ipvs},
		{"scheduler", header + "mode: ipvs\nipvs: {scheduler: mh}\n", nil, mode("ipvs")},
		{"scheduler that rules cannot be", header + "mode: ipvs\nipvs: {scheduler: lc}\n", nil, append(mode("ipvs"),
			scheduler+": scheduler lc is not available: it needs the number of open connections of each endpoint, "+
				"which rules cannot compare; rr comes nearest; connections choose at random")},
		{"ipvs as by default", nft + "ipvs: {syncPeriod: 30s, excludeCIDRs: []}\n", nil, nil},
		{"ipvs flags", "", []string{"--ipvs-sync-period=1m", "--ipvs-min-sync-period=2s",
			"--ipvs-scheduler=rr", "--ipvs-exclude-cidrs=10.0.0.0/8", "--ipvs-strict-arp", "--ipvs-tcp-timeout=1s",
			"--ipvs-tcpfin-timeout=1s", "--ipvs-udp-timeout=1s", "--iptables-localhost-nodeports=false"},
			append(localhost, ipvs...)},
		{"windows", nft + "winkernel: {networkName: net, sourceVip: 192.0.2.1, enableDSR: true, " +
			"rootHnsEndpointName: end, forwardHealthCheckVip: true}\nwindowsRunAsService: true\n", nil,
			ignored(linux, "windowsRunAsService", "winkernel.networkName", "winkernel.sourceVip",
				"winkernel.enableDSR", "winkernel.rootHnsEndpointName", "winkernel.forwardHealthCheckVip")},
		{"configSyncPeriod", nft + "configSyncPeriod: 1m\n", nil,
			ignored(resync, "configSyncPeriod (--config-sync-period)")},
		{"configSyncPeriod as by default", nft + "configSyncPeriod: 15m\n", nil, nil},
		{"configSyncPeriod flag", "", []string{"--config-sync-period=16m"},
			ignored(resync, "configSyncPeriod (--config-sync-period)")},
		{"portRange", nft + "portRange: 1-2\n", nil,
			ignored("kube-proxy does not use it either", "portRange")},
		{"hidden metrics", nft + "showHiddenMetricsForVersion: '1.36'\n", nil,
			ignored("nftproxy has no hidden metrics",
				"showHiddenMetricsForVersion (--show-hidden-metrics-for-version)")},
		{"feature gates", nft + "featureGates: {NFTablesNetlink: true, KubeProxyIPVS: false, " +
			"ContextualLogging: false, AllowServiceExternalIPs: false, AllAlpha: false, AllBeta: false}\n", nil,
			ignored(gates, "featureGates.KubeProxyIPVS (--feature-gates)",
				"featureGates.NFTablesNetlink (--feature-gates)")},
		{"feature gate flag", "", []string{"--feature-gates=NFTablesNetlink=true"},
			ignored(gates, "featureGates.NFTablesNetlink (--feature-gates)")},
		{"loopback", nft + "nodePortAddresses: [primary, localhost, 127.0.0.1/32, '::1/128']\n", nil,
			nil},
		{"loopback without the feature", nft + "featureGates: {KubeProxyNFTablesLocalhostNodePorts: false}\n" +
			"nodePortAddresses: [primary, localhost, 127.0.0.1/32, '::1/128']\n", nil,
			ignored(gateOff, "nodePortAddresses[1] localhost", "nodePortAddresses[2] 127.0.0.1/32",
				"nodePortAddresses[3] ::1/128")},
		{"loopback with the feature", nft + "featureGates: {KubeProxyNFTablesLocalhostNodePorts: true}\n" +
			"nodePortAddresses: [localhost]\n", nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, warnings := mustComplete(t, tt.file, tt.args...)
			if diff := cmp.Diff(tt.want, warnings); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
		})
	}
}

// The scheduler of IPVS counts if the configuration was written for IPVS.
func TestScheduler(t *testing.T) {
	for _, tt := range []struct {
		file string
		args []string
		want service.Scheduler
	}{
		{header + "mode: ipvs\n", nil, service.Random},
		{header + "mode: ipvs\nipvs: {scheduler: rr}\n", nil, service.RoundRobin},
		{header + "mode: ipvs\nipvs: {scheduler: wrr}\n", nil, service.RoundRobin},
		{header + "mode: ipvs\nipvs: {scheduler: mh}\n", nil, service.Maglev},
		{header + "mode: ipvs\nipvs: {scheduler: sh}\n", nil, service.SourceHash},
		{header + "mode: ipvs\nipvs: {scheduler: wlc}\n", nil, service.Random},
		{header + "mode: nftables\nipvs: {scheduler: mh}\n", nil, service.Random},
		{header + "ipvs: {scheduler: mh}\n", nil, service.Random},
		{"", []string{"--proxy-mode=ipvs", "--ipvs-scheduler=sh"}, service.SourceHash},
		{"", []string{"--ipvs-scheduler=sh"}, service.Random},
	} {
		if c, _ := mustComplete(t, tt.file, tt.args...); c.Scheduler != tt.want {
			t.Errorf("%q %v: scheduler %s, want %s", tt.file, tt.args, c.Scheduler, tt.want)
		}
	}
}

func TestMasqueradingOfOtherModes(t *testing.T) {
	const iptables = "iptables: {masqueradeBit: 3, masqueradeAll: true}\n"
	unused := []string{
		"iptables.masqueradeBit has no effect: mode is nftables, or the nftables section is not empty",
		"iptables.masqueradeAll has no effect: mode is nftables, or the nftables section is not empty",
	}
	for _, tt := range []struct {
		name, file string
		mark       uint32
		all        bool
		warnings   []string
	}{
		{"iptables", "mode: iptables\n" + iptables, 1 << 3, true, []string{modeWarning("iptables")}},
		{"ipvs", "mode: ipvs\n" + iptables, 1 << 3, true, []string{modeWarning("ipvs")}},
		{"empty", iptables + "nftables: {masqueradeAll: false, masqueradeBit: null, syncPeriod: 0s}\n",
			1 << 3, true, []string{modeWarning("")}},
		{"nftables", "mode: nftables\n" + iptables, 1 << 14, false, unused},
		{"both", "mode: iptables\n" + iptables + "nftables: {masqueradeBit: 5}\n", 1 << 5, false,
			append([]string{modeWarning("iptables")}, unused...)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, warnings := mustComplete(t, header+tt.file)
			if c.MasqueradeMark() != tt.mark || c.MasqueradeAll() != tt.all {
				t.Errorf("got %#x, %v; want %#x, %v", c.MasqueradeMark(), c.MasqueradeAll(), tt.mark, tt.all)
			}
			if diff := cmp.Diff(tt.warnings, warnings); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
			if c.Kube.Mode != ModeNFTables {
				t.Errorf("mode = %q", c.Kube.Mode)
			}
		})
	}
}
