package config

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/nftproxy/nftproxy/rules"
)

// kubeProxyFlags has the name, type and default of kube-proxy's flags, without the logging flags.
const kubeProxyFlags = `
bind-address ip 0.0.0.0
bind-address-hard-fail bool false
cleanup bool false
cluster-cidr string
config string
config-sync-period duration 15m0s
conntrack-max-per-core int32 32768
conntrack-min int32 131072
conntrack-tcp-be-liberal bool false
conntrack-tcp-timeout-close-wait duration 1h0m0s
conntrack-tcp-timeout-established duration 24h0m0s
conntrack-udp-timeout duration 0s
conntrack-udp-timeout-stream duration 0s
detect-local-mode LocalMode
feature-gates mapStringBool
healthz-bind-address ipport 0.0.0.0:10256
healthz-port int32 10256
hostname-override string
init-only bool false
iptables-localhost-nodeports bool true
iptables-masquerade-bit int32 14
iptables-min-sync-period duration 0s
iptables-sync-period duration 30s
ipvs-exclude-cidrs stringSlice []
ipvs-min-sync-period duration 0s
ipvs-scheduler string
ipvs-strict-arp bool false
ipvs-sync-period duration 30s
ipvs-tcp-timeout duration 0s
ipvs-tcpfin-timeout duration 0s
ipvs-udp-timeout duration 0s
kube-api-burst int32 10
kube-api-content-type string application/vnd.kubernetes.protobuf
kube-api-qps float32 5
kubeconfig string
masquerade-all bool false
master string
metrics-bind-address ipport 127.0.0.1:10249
metrics-port int32 10249
nodeport-addresses stringSlice []
oom-score-adj int32 -999
pod-bridge-interface string
pod-interface-name-prefix string
profiling bool false
proxy-mode ProxyMode
show-hidden-metrics-for-version string
write-config-to string
`

func TestFlagSet(t *testing.T) {
	o := NewOptions()
	fs := pflag.NewFlagSet("nftproxy", pflag.ContinueOnError)
	o.AddFlags(fs)
	want := append(strings.Split(strings.TrimSpace(kubeProxyFlags), "\n"),
		"allowed-external-cidrs stringSlice []", "connection-counters string auto",
		"sysctl-dir string /proc/sys/net",
		"source string", "dry-run bool false", "own-tables bool true", "take-over bool false")
	slices.Sort(want)
	var got []string
	fs.VisitAll(func(f *pflag.Flag) {
		if o.logging.Lookup(f.Name) == nil {
			got = append(got, strings.TrimSpace(f.Name+" "+f.Value.Type()+" "+f.DefValue))
		}
		if f.Usage == "" {
			t.Errorf("--%s has no help", f.Name)
		}
	})
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("flags (-want +got):\n%s", diff)
	}
	for _, name := range []string{"v", "vmodule", "logging-format", "log-flush-frequency"} {
		if fs.Lookup(name) == nil {
			t.Errorf("no logging flag --%s", name)
		}
	}
	if usage := fs.FlagUsages(); strings.Contains(usage, "healthz-port") {
		t.Error("help shows a deprecated flag")
	}
}

func TestFlagsWithoutFile(t *testing.T) {
	c, warnings := mustComplete(t, "",
		"--source=/manifests", "--dry-run", "--own-tables=false", "--take-over", "--write-config-to=/out",
		"--cleanup", "--init-only", "--sysctl-dir=/sysctls", "--allowed-external-cidrs=192.0.2.0/24",
		"--master=https://192.0.2.1", "--kubeconfig=/kubeconfig",
		"--kube-api-content-type=application/json", "--kube-api-burst=7", "--kube-api-qps=3.5",
		"--config-sync-period=1m", "--healthz-bind-address=192.0.2.1", "--metrics-bind-address=[::]:99",
		"--bind-address-hard-fail", "--profiling", "--oom-score-adj=5", "--detect-local-mode=BridgeInterface",
		"--pod-bridge-interface=br0", "--pod-interface-name-prefix=veth", "--nodeport-addresses=10.0.0.0/8",
		"--nodeport-addresses=primary", "--iptables-sync-period=1h", "--iptables-min-sync-period=3s",
		"--conntrack-max-per-core=1", "--conntrack-min=2", "--conntrack-tcp-timeout-established=3s",
		"--conntrack-tcp-timeout-close-wait=4s", "--conntrack-udp-timeout=5s",
		"--conntrack-udp-timeout-stream=6s", "--conntrack-tcp-be-liberal", "--proxy-mode=nftables",
		"--v=4", "--vmodule=a=1",
	)
	wantWarnings := []string{"configSyncPeriod (--config-sync-period) has no effect: " +
		"nftproxy watches the API server and does not resync periodically"}
	if diff := cmp.Diff(wantWarnings, warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	want := Config{
		Source: "/manifests", DryRun: true, TakeOver: true, WriteConfigTo: "/out", Cleanup: true,
		InitOnly: true, SysctlDir: "/sysctls", ConnectionCounters: "auto",
		AllowedExternalCIDRs: []string{"192.0.2.0/24"},
		Master:               "https://192.0.2.1", MinSyncPeriodSet: true, Kube: c.Kube,
	}
	c.options = nil
	if diff := cmp.Diff(want, *c, cmp.AllowUnexported(Config{})); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	checkGolden(t, c, "flags.golden.yaml")
}

func TestMinSyncPeriodSet(t *testing.T) {
	for _, tt := range []struct {
		name, file string
		args       []string
		want       bool
		period     time.Duration
	}{
		{"flag of zero", "", []string{"--iptables-min-sync-period=0"}, true, 0},
		{"file", header + "mode: nftables\nnftables: {minSyncPeriod: 2s}\n", nil, true, 2 * time.Second},
		{"file of zero", header + "mode: nftables\nnftables: {minSyncPeriod: 0s}\n", nil, false, 0},
		{"flag and file", header + "mode: nftables\n", []string{"--iptables-min-sync-period=5s"}, false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, _ := mustComplete(t, tt.file, tt.args...)
			got := c.Kube.NFTables.MinSyncPeriod.Duration
			if c.MinSyncPeriodSet != tt.want || got != tt.period {
				t.Errorf("got %v, %s; want %v, %s", c.MinSyncPeriodSet, got, tt.want, tt.period)
			}
		})
	}
}

func TestServerAddressFlags(t *testing.T) {
	for _, tt := range []struct {
		args     []string
		healthz  string
		metrics  string
		warnings []string
	}{
		{[]string{"--healthz-port=0", "--metrics-port=0"}, "", "", nil},
		{[]string{"--healthz-bind-address=", "--metrics-bind-address="}, "", "", nil},
		{[]string{"--healthz-bind-address=::1", "--healthz-port=7"}, "[::1]:7", "127.0.0.1:10249", nil},
		{[]string{"--metrics-port=7"}, "0.0.0.0:10256", "127.0.0.1:10249",
			[]string{"--metrics-port has no effect: --metrics-bind-address has a port, 127.0.0.1:10249"}},
		{[]string{"--bind-address="}, "0.0.0.0:10256", "127.0.0.1:10249", nil},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			c, warnings := mustComplete(t, "", tt.args...)
			if c.Kube.HealthzBindAddress != tt.healthz || c.Kube.MetricsBindAddress != tt.metrics {
				t.Errorf("got %q and %q, want %q and %q",
					c.Kube.HealthzBindAddress, c.Kube.MetricsBindAddress, tt.healthz, tt.metrics)
			}
			if diff := cmp.Diff(tt.warnings, warnings); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFlagErrors(t *testing.T) {
	for _, tt := range []struct{ arg, want string }{
		{"--bind-address=host", `"host" is not an IP address`},
		{"--healthz-bind-address=host:80", `"host" is not an IP address: want an IP address or IP:port`},
		{"--metrics-bind-address=192.0.2.1:0", `port "0" is not within 1 to 65535`},
		{"--metrics-bind-address=192.0.2.1:", `port "" is not within 1 to 65535`},
	} {
		o := NewOptions()
		fs := pflag.NewFlagSet("nftproxy", pflag.ContinueOnError)
		o.AddFlags(fs)
		if err := fs.Parse([]string{tt.arg}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.arg, err, tt.want)
		}
	}
}

const fullFile = header + `
mode: nftables
clusterCIDR: 10.0.0.0/8
detectLocalMode: ClusterCIDR
detectLocal: {bridgeInterface: br0, interfaceNamePrefix: veth}
nodePortAddresses: [192.0.2.0/24]
nftables: {masqueradeBit: 10, masqueradeAll: true}
clientConnection: {kubeconfig: /file}
logging: {verbosity: 2, vmodule: [{filePattern: a, verbosity: 1}]}
hostnameOverride: file
`

func TestRulesetFlagsOverrideFile(t *testing.T) {
	args := []string{
		"--cluster-cidr=172.16.0.0/12", "--detect-local-mode=NodeCIDR", "--pod-bridge-interface=br9",
		"--pod-interface-name-prefix=cali", "--nodeport-addresses=localhost", "--masquerade-all=false",
		"--iptables-masquerade-bit=3",
	}
	c, warnings := mustComplete(t, fullFile, args...)
	want, _ := mustComplete(t, strings.NewReplacer(
		"10.0.0.0/8", "172.16.0.0/12", "192.0.2.0/24", "localhost", "br0", "br9", "veth", "cali",
		"detectLocalMode: ClusterCIDR", "detectLocalMode: NodeCIDR",
		"masqueradeBit: 10", "masqueradeBit: 3", "masqueradeAll: true", "masqueradeAll: false",
	).Replace(fullFile))
	if diff := cmp.Diff(want.Kube, c.Kube); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	var wantWarnings []string
	for _, names := range []string{
		"--detect-local-mode overrides detectLocalMode", "--cluster-cidr overrides clusterCIDR",
		"--pod-bridge-interface overrides detectLocal.bridgeInterface",
		"--pod-interface-name-prefix overrides detectLocal.interfaceNamePrefix",
		"--nodeport-addresses overrides nodePortAddresses",
		"--masquerade-all overrides nftables.masqueradeAll",
		"--iptables-masquerade-bit overrides nftables.masqueradeBit",
	} {
		wantWarnings = append(wantWarnings,
			names+" of the configuration file; kube-proxy would ignore the flag")
	}
	if diff := cmp.Diff(wantWarnings, warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

func TestFileIgnoresOtherFlags(t *testing.T) {
	c, warnings := mustComplete(t, fullFile, "--kubeconfig=/flag", "--healthz-port=0", "--profiling",
		"--master=https://192.0.2.1", "--hostname-override=flag")
	want, _ := mustComplete(t, strings.Replace(fullFile, "Override: file", "Override: flag", 1))
	if diff := cmp.Diff(want.Kube, c.Kube); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	if c.Master != "https://192.0.2.1" {
		t.Errorf("Master = %q", c.Master)
	}
	wantWarnings := []string{
		"--kubeconfig is ignored: --config is set",
		"--healthz-port is ignored: --config is set",
		"--profiling is ignored: --config is set",
	}
	if diff := cmp.Diff(wantWarnings, warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

func TestLoggingFlagsOverrideFile(t *testing.T) {
	c, warnings := mustComplete(t, fullFile, "-v=5", "--vmodule=b=3")
	if len(warnings) != 0 {
		t.Errorf("warnings: %q", warnings)
	}
	want, _ := mustComplete(t, strings.Replace(fullFile,
		"{verbosity: 2, vmodule: [", "{verbosity: 5, vmodule: [{filePattern: b, verbosity: 3}, ", 1))
	if diff := cmp.Diff(want.Kube, c.Kube); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
}

// The more CPUs a node has, the fewer endpoints get counters: 32 MiB is room for 30,840 with 64 CPUs, and the
// eighth of a memory limit of 64 MiB for 7,710.
func TestConnectionCounters(t *testing.T) {
	for _, tt := range []struct {
		value  string
		memory int64
		want   rules.Counters
	}{
		{"auto", math.MaxInt64, rules.Counters{Services: true, Endpoints: 30840}},
		{"auto", 64 << 20, rules.Counters{Services: true, Endpoints: 7710}},
		{"endpoints", 64 << 20, rules.Counters{Services: true, Endpoints: math.MaxInt}},
		{"services", 64 << 20, rules.Counters{Services: true}},
		{"off", math.MaxInt64, rules.Counters{}},
	} {
		c, _, err := complete(t, "", "--connection-counters="+tt.value)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Counters(64, tt.memory); got != tt.want {
			t.Errorf("%s with %d bytes: %+v, want %+v", tt.value, tt.memory, got, tt.want)
		}
	}
	fs := pflag.NewFlagSet("nftproxy", pflag.ContinueOnError)
	NewOptions().AddFlags(fs)
	err := fs.Parse([]string{"--connection-counters=on"})
	if err == nil || !strings.Contains(err.Error(), "want one of auto, endpoints, services, off") {
		t.Errorf("got error %v", err)
	}
}
