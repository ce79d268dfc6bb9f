package config

import (
	"strings"
	"testing"
)

func TestValidationErrors(t *testing.T) {
	for _, tt := range []struct{ file, want string }{
		{"mode: userspace", `mode: Invalid value: "userspace": must be nftables`},
		{"bindAddress: host", `bindAddress: Invalid value: "host": must be an IP address`},
		{"healthzBindAddress: '192.0.2.1:0'",
			`healthzBindAddress: Invalid value: "192.0.2.1:0": must be IP or IP:port: ` +
				`port "0" is not within 1 to 65535`},
		{"healthzBindAddress: host:80", `must be IP or IP:port: "host" is not an IP address`},
		{"metricsBindAddress: host", `metricsBindAddress: Invalid value: "host": must be IP or IP:port`},
		{"clientConnection: {burst: -1}", `clientConnection.burst: Invalid value: -1: must not be negative`},
		{"configSyncPeriod: -1s", `configSyncPeriod: Invalid value: "-1s": must be greater than 0`},
		{"oomScoreAdj: 1001", `oomScoreAdj: Invalid value: 1001: must be within -1000 to 1000`},
		{"oomScoreAdj: -1001", `oomScoreAdj: Invalid value: -1001`},
		{"nftables: {masqueradeBit: 32}",
			`nftables.masqueradeBit: Invalid value: 32: must be within 0 to 31`},
		{"mode: nftables\niptables: {masqueradeBit: -1}",
			`iptables.masqueradeBit: Invalid value: -1: must be within 0 to 31`},
		{"nftables: {syncPeriod: -1s}", `nftables.syncPeriod: Invalid value: "-1s": must be greater than 0`},
		{"nftables: {minSyncPeriod: -1s}",
			`nftables.minSyncPeriod: Invalid value: "-1s": must not be negative`},
		{"nftables: {minSyncPeriod: 31s}",
			`nftables.minSyncPeriod: Invalid value: "31s": ` +
				`must not be greater than nftables.syncPeriod, 30s`},
		{"conntrack: {maxPerCore: -1}", `conntrack.maxPerCore: Invalid value: -1: must not be negative`},
		{"conntrack: {min: -1}", `conntrack.min: Invalid value: -1: must not be negative`},
		{"conntrack: {tcpEstablishedTimeout: -1s}",
			`conntrack.tcpEstablishedTimeout: Invalid value: "-1s": must not be negative`},
		{"conntrack: {tcpCloseWaitTimeout: -1s}", `conntrack.tcpCloseWaitTimeout: Invalid value: "-1s"`},
		{"conntrack: {udpTimeout: -1s}", `conntrack.udpTimeout: Invalid value: "-1s"`},
		{"conntrack: {udpStreamTimeout: -1s}", `conntrack.udpStreamTimeout: Invalid value: "-1s"`},
		{"clusterCIDR: 10.0.0.0",
			`clusterCIDR: Invalid value: "10.0.0.0": must be a CIDR, or a CIDR of each IP family`},
		{"clusterCIDR: '10.0.0.0/8,10.1.0.0/16'",
			`clusterCIDR: Invalid value: "10.0.0.0/8,10.1.0.0/16": must be a CIDR`},
		{"clusterCIDR: '10.0.0.0/8,fd00::/48,fd01::/48'", `clusterCIDR: Invalid value`},
		{"clusterCIDR: '10.0.0.0/8,'", `clusterCIDR: Invalid value`},
		{"clusterCIDR: '::ffff:10.0.0.0/104'", `"::ffff:10.0.0.0/104" is an IPv4 range written as IPv6`},
		{"detectLocalMode: clustercidr",
			`detectLocalMode: Invalid value: "clustercidr": ` +
				`must be ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix`},
		{"detectLocalMode: BridgeInterface",
			`detectLocal.bridgeInterface: Required value: detectLocalMode BridgeInterface needs it`},
		{"detectLocalMode: InterfaceNamePrefix",
			`detectLocal.interfaceNamePrefix: Required value: detectLocalMode InterfaceNamePrefix needs it`},
		{"detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: sixteen-letters-}",
			`detectLocal.bridgeInterface: Invalid value: "sixteen-letters-": must be the name`},
		{"detectLocalMode: InterfaceNamePrefix\ndetectLocal: {interfaceNamePrefix: 'a\"b'}",
			`detectLocal.interfaceNamePrefix: Invalid value`},
		{"nodePortAddresses: [primary, Primary]",
			`nodePortAddresses[1]: Invalid value: "Primary": ` +
				`must be a CIDR, or one of the keywords primary, localhost and all`},
		{"nodePortAddresses: [192.0.2.1]", `nodePortAddresses[0]: Invalid value: "192.0.2.1"`},
		{"featureGates: {Nonesuch: true}",
			`featureGates: Invalid value: "Nonesuch": unrecognized feature gate: Nonesuch`},
		{"featureGates: {NFTablesProxyMode: false}", `cannot set feature gate NFTablesProxyMode to false, ` +
			`feature is locked to true`},
		{"featureGates: {WorkloadWithJob: true, GenericWorkload: false}",
			`WorkloadWithJob is enabled, but depends on features that are disabled: [GenericWorkload]`},
		{"logging: {format: morse}", `logging.format: Invalid value: "morse"`},
		{"logging: {options: {text: {splitStream: true}}}", `logging.options.text.splitStream: Forbidden`},
	} {
		t.Run(tt.file, func(t *testing.T) {
			_, _, err := complete(t, header+tt.file+"\n")
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %s in it", err, tt.want)
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != 2 || lines[0] != "invalid configuration:" {
				t.Errorf("want one validation error, got %v", err)
			}
		})
	}
}

func TestValidationReportsAll(t *testing.T) {
	_, _, err := complete(t, "", "--oom-score-adj=2000", "--iptables-masquerade-bit=40",
		"--config-sync-period=0", "--iptables-sync-period=0", "--detect-local-mode=x")
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"oomScoreAdj: Invalid value: 2000", "nftables.masqueradeBit: Invalid value: 40",
		`configSyncPeriod: Invalid value: "0s"`, `nftables.syncPeriod: Invalid value: "0s"`,
		`detectLocalMode: Invalid value: "x"`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s in it", err, want)
		}
	}
}

func TestValid(t *testing.T) {
	for _, file := range []string{
		"clusterCIDR: nonsense\ndetectLocalMode: NodeCIDR", // not used in that mode, as in kube-proxy
		"clusterCIDR: 010.0.0.0/8",                         // decimal, as in kube-proxy
		"clusterCIDR: 'fd00::/48,10.0.0.0/8'",
		"nodePortAddresses: [primary, localhost, all, 192.0.2.1/32]",
		"detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: fifteen-letters}",
		"conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s}",
		"nftables: {masqueradeBit: 0}",
		"ipvs: {tcpTimeout: -1s}", // has no effect, which is a warning
	} {
		if _, _, err := complete(t, header+file+"\n"); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}
