package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
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
		{"mode: nftables\nnftables: {masqueradeBit: 32}",
			`nftables.masqueradeBit: Invalid value: 32: must be within 0 to 31`},
		{"mode: nftables\niptables: {masqueradeBit: -1}",
			`iptables.masqueradeBit: Invalid value: -1: must be within 0 to 31`},
		{"mode: nftables\nnftables: {syncPeriod: -1s}",
			`nftables.syncPeriod: Invalid value: "-1s": must be greater than 0`},
		{"mode: nftables\nnftables: {minSyncPeriod: -1s}",
			`nftables.minSyncPeriod: Invalid value: "-1s": must not be negative`},
		{"mode: nftables\nnftables: {minSyncPeriod: 31s}",
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
		{"clusterCIDR: '10.0.0.0/8,::ffff:10.0.0.0/104'", `clusterCIDR: Invalid value`},
		{"iptables: {syncPeriod: -1s}", `iptables.syncPeriod: Invalid value: "-1s": must be greater than 0`},
		{"iptables: {syncPeriod: 500ms}", `iptables.minSyncPeriod: Invalid value: "1s": ` +
			`must not be greater than iptables.syncPeriod, 500ms`},
		{"mode: iptables\niptables: {minSyncPeriod: -1s}",
			`iptables.minSyncPeriod: Invalid value: "-1s": must not be negative`},
		{"mode: ipvs\nipvs: {syncPeriod: -1s}", `ipvs.syncPeriod: Invalid value: "-1s"`},
		{"mode: ipvs\nipvs: {minSyncPeriod: 31s}", `ipvs.minSyncPeriod: Invalid value: "31s"`},
		{"mode: ipvs\nipvs: {tcpTimeout: -1s}", `ipvs.tcpTimeout: Invalid value: "-1s"`},
		{"mode: ipvs\nipvs: {tcpFinTimeout: -1s}", `ipvs.tcpFinTimeout: Invalid value: "-1s"`},
		{"mode: ipvs\nipvs: {udpTimeout: -1s}", `ipvs.udpTimeout: Invalid value: "-1s"`},
		{"mode: ipvs\nipvs: {excludeCIDRs: [10.0.0.0/8, 10.0.0.1]}",
			`ipvs.excludeCIDRs[1]: Invalid value: "10.0.0.1": must be a CIDR`},
		{"showHiddenMetricsForVersion: '1.35'",
			`showHiddenMetricsForVersion: Invalid value: "1.35": must be 1.36 or empty`},
		{"nodePortAddresses: [primary, 10.0.0.0/8, primary]",
			`nodePortAddresses[2]: Duplicate value: "primary"`},
		{"detectLocalMode: clustercidr",
			`detectLocalMode: Invalid value: "clustercidr": ` +
				`must be ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix`},
		{"detectLocalMode: BridgeInterface",
			`detectLocal.bridgeInterface: Required value: detectLocalMode BridgeInterface needs it`},
		{"detectLocalMode: InterfaceNamePrefix",
			`detectLocal.interfaceNamePrefix: Required value: detectLocalMode InterfaceNamePrefix needs it`},
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

// TestValidationOfOtherModes shows that sections of other modes are not validated, as in kube-proxy. The
// nftables section, which nftproxy uses in every mode, then has its defaults in place of invalid values.
func TestValidationOfOtherModes(t *testing.T) {
	for _, tt := range []struct{ file, ignored string }{
		{"mode: nftables\niptables: {syncPeriod: -1s, minSyncPeriod: -1s}", ""},
		{"mode: nftables\nipvs: {syncPeriod: -1s, minSyncPeriod: -1s, tcpTimeout: -1s, tcpFinTimeout: -1s, " +
			"udpTimeout: -1s, excludeCIDRs: [x]}", ""},
		{"mode: ipvs\niptables: {syncPeriod: -1s}", ""},
		{"ipvs: {syncPeriod: -1s}", ""},
		{"nftables: {masqueradeBit: 32}", "nftables.masqueradeBit"},
		{"mode: iptables\nnftables: {syncPeriod: -1s}", "nftables.syncPeriod"},
		{"mode: ipvs\nnftables: {minSyncPeriod: 31s}", "nftables.minSyncPeriod"},
	} {
		t.Run(tt.file, func(t *testing.T) {
			c, warnings := mustComplete(t, header+tt.file+"\n")
			if tt.ignored == "" {
				return
			}
			all := strings.Join(warnings, "\n")
			if !strings.Contains(all, tt.ignored+" is ignored: "+tt.ignored+": Invalid value: ") {
				t.Errorf("no warning that %s is ignored: %s", tt.ignored, all)
			}
			want, _ := mustComplete(t, header)
			if diff := cmp.Diff(want.Kube.NFTables, c.Kube.NFTables); diff != "" || c.MinSyncPeriodSet {
				t.Errorf("nftables section (-default +got):\n%s", diff)
			}
		})
	}
	// A flag is validated in every mode.
	_, _, err := complete(t, header+"mode: iptables\n", "--iptables-masquerade-bit=32")
	if err == nil || !strings.Contains(err.Error(), "nftables.masqueradeBit: Invalid value: 32") {
		t.Errorf("error %v", err)
	}
	// The iptables section counts if the nftables section has invalid values only.
	c, _ := mustComplete(t, header+"iptables: {masqueradeBit: 5}\nnftables: {masqueradeBit: 32}\n")
	if c.MasqueradeMark() != 1<<5 {
		t.Errorf("mark %#x, want that of the iptables section", c.MasqueradeMark())
	}
}

// TestPodInterface has the names that kube-proxy accepts, also those that no interface can have.
func TestPodInterface(t *testing.T) {
	const bridge, prefix = "BridgeInterface", "InterfaceNamePrefix"
	for _, tt := range []struct {
		mode, name, want string
		warning          bool
	}{
		{bridge, "cni0", "cni0", false},
		{bridge, "fifteen-letters", "fifteen-letters", false},
		{bridge, "sixteen-letters-", ":", true},
		{bridge, "cni*", "cni*", false},
		{bridge, "*", ":", true},
		{bridge, "eth0:1", ":", true},
		{bridge, `a"b`, ":", true},
		{prefix, "veth", "veth*", false},
		{prefix, "fourteen-bytes", "fourteen-bytes*", false},
		{prefix, "fifteen-letters", "fifteen-letters", false},
		{prefix, "sixteen-letters-", ":", true},
		{prefix, "a:", ":", true},
		{prefix, "a*", ":", true},
	} {
		t.Run(tt.mode+" "+tt.name, func(t *testing.T) {
			c, warnings := mustComplete(t, header+"mode: nftables\ndetectLocalMode: "+tt.mode+
				"\ndetectLocal: {bridgeInterface: '"+tt.name+"', interfaceNamePrefix: '"+tt.name+"'}\n")
			if got := c.PodInterface(); got != tt.want {
				t.Errorf("PodInterface is %q, want %q", got, tt.want)
			}
			all := strings.Join(warnings, "\n")
			if strings.Contains(all, "no interface can have the name") != tt.warning {
				t.Errorf("warnings %q, want one: %v", warnings, tt.warning)
			}
		})
	}
}
