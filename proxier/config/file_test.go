package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	logsapi "k8s.io/component-base/logs/api/v1"
)

func TestLenientDecoding(t *testing.T) {
	c, warnings := mustComplete(t, header+"mode: nftables\nudpIdleTimeout: 250ms\nclusterCIDR: 10.0.0.0/8\n"+
		"nftables: {masqueradeBit: 3, bit: 4}\nclusterCIDR: 10.1.0.0/16\n")
	if len(warnings) != 3 {
		t.Errorf("want 3 warnings, got %q", warnings)
	}
	all := strings.Join(warnings, "\n")
	if strings.Count(all, "\n") != 2 {
		t.Errorf("a warning has more than one line: %q", warnings)
	}
	for _, want := range []string{`"clusterCIDR" already set`, `unknown field "udpIdleTimeout"`, `unknown field "nftables.bit"`} {
		if !strings.Contains(all, want) {
			t.Errorf("no warning says %s: %s", want, all)
		}
	}
	if c.Kube.ClusterCIDR != "10.1.0.0/16" || c.MasqueradeMark() != 1<<3 {
		t.Errorf("the rest does not count: %q, %#x", c.Kube.ClusterCIDR, c.MasqueradeMark())
	}
}

func TestDecodeErrors(t *testing.T) {
	const want = "want kubeproxy.config.k8s.io/v1alpha1, KubeProxyConfiguration"
	for _, tt := range []struct {
		name, file string
		want       []string
	}{
		{"kind", "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeletConfiguration\n", []string{"kind KubeletConfiguration", want}},
		{"version", "apiVersion: kubeproxy.config.k8s.io/v1\nkind: KubeProxyConfiguration\n", []string{"apiVersion kubeproxy.config.k8s.io/v1,", want}},
		{"no kind", "mode: nftables\n", []string{"must be given", want}},
		{"no version", "kind: KubeProxyConfiguration\n", []string{"must be given", want}},
		{"not YAML", "{", []string{"decode configuration", "yaml"}},
		{"wrong type", header + "iptables: {masqueradeBit: fourteen}\n", []string{"masqueradeBit"}},
		{"bad duration", header + "configSyncPeriod: soon\n", []string{`"soon"`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := complete(t, tt.file)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want it to say %q", err, want)
				}
			}
		})
	}
	if _, _, err := complete(t, "", "--config=/does/not/exist"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("file that is not there: %v", err)
	}
	if err := new(Config).Write("/does/not/exist"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Write to a directory that is not there: %v", err)
	}
}

func TestWarnings(t *testing.T) {
	none := func(names ...string) (warnings []string) {
		for _, name := range names {
			warnings = append(warnings, name+" has no effect in nftproxy")
		}
		return warnings
	}
	loopback := func(which string) string {
		return "nodePortAddresses" + which + " has no effect: nodePorts are never served on loopback"
	}
	const nft = header + "mode: nftables\n"
	for _, tt := range []struct {
		name, file string
		args       []string
		want       []string
	}{
		{"mode empty", header, nil, []string{modeWarning("")}},
		{"mode iptables", header + "mode: iptables\n", nil, []string{modeWarning("iptables")}},
		{"mode ipvs", header + "mode: ipvs\n", nil, []string{modeWarning("ipvs")}},
		{"mode flag", "", []string{"--proxy-mode=ipvs"}, []string{modeWarning("ipvs")}},
		{"iptables", nft + "iptables: {masqueradeBit: 3, masqueradeAll: true, localhostNodePorts: false, syncPeriod: 1m, minSyncPeriod: 2s}\n", nil,
			none("iptables.masqueradeBit", "iptables.masqueradeAll",
				"iptables.localhostNodePorts (--iptables-localhost-nodeports)", "iptables.syncPeriod", "iptables.minSyncPeriod")},
		{"iptables as by default", nft + "iptables: {masqueradeBit: 14, localhostNodePorts: true, syncPeriod: 30s, minSyncPeriod: 1s}\n", nil, nil},
		{"ipvs", nft + "ipvs: {syncPeriod: 1m, minSyncPeriod: 2s, scheduler: rr, excludeCIDRs: [10.0.0.0/8], strictARP: true, tcpTimeout: 1s, tcpFinTimeout: 1s, udpTimeout: 1s}\n", nil,
			none("ipvs.syncPeriod (--ipvs-sync-period)", "ipvs.minSyncPeriod (--ipvs-min-sync-period)", "ipvs.scheduler (--ipvs-scheduler)",
				"ipvs.excludeCIDRs (--ipvs-exclude-cidrs)", "ipvs.strictARP (--ipvs-strict-arp)", "ipvs.tcpTimeout (--ipvs-tcp-timeout)",
				"ipvs.tcpFinTimeout (--ipvs-tcpfin-timeout)", "ipvs.udpTimeout (--ipvs-udp-timeout)")},
		{"ipvs flags", "", []string{"--ipvs-sync-period=1m", "--ipvs-min-sync-period=2s", "--ipvs-scheduler=rr", "--ipvs-exclude-cidrs=10.0.0.0/8",
			"--ipvs-strict-arp", "--ipvs-tcp-timeout=1s", "--ipvs-tcpfin-timeout=1s", "--ipvs-udp-timeout=1s", "--iptables-localhost-nodeports=false"},
			none("iptables.localhostNodePorts (--iptables-localhost-nodeports)",
				"ipvs.syncPeriod (--ipvs-sync-period)", "ipvs.minSyncPeriod (--ipvs-min-sync-period)", "ipvs.scheduler (--ipvs-scheduler)",
				"ipvs.excludeCIDRs (--ipvs-exclude-cidrs)", "ipvs.strictARP (--ipvs-strict-arp)", "ipvs.tcpTimeout (--ipvs-tcp-timeout)",
				"ipvs.tcpFinTimeout (--ipvs-tcpfin-timeout)", "ipvs.udpTimeout (--ipvs-udp-timeout)")},
		{"windows", nft + "winkernel: {networkName: net, sourceVip: 192.0.2.1, enableDSR: true, rootHnsEndpointName: end, forwardHealthCheckVip: true}\nwindowsRunAsService: true\n", nil,
			none("winkernel.networkName", "winkernel.sourceVip", "winkernel.enableDSR", "winkernel.rootHnsEndpointName",
				"winkernel.forwardHealthCheckVip", "windowsRunAsService")},
		{"other", nft + "portRange: 1-2\nshowHiddenMetricsForVersion: '1.36'\n", nil,
			none("portRange", "showHiddenMetricsForVersion (--show-hidden-metrics-for-version)")},
		{"feature gates", nft + "featureGates: {B: true, A: false, ContextualLogging: false}\n", nil,
			none("featureGates.A (--feature-gates)", "featureGates.B (--feature-gates)")},
		{"feature gate flag", "", []string{"--feature-gates=A=true"}, none("featureGates.A (--feature-gates)")},
		{"loopback", nft + "nodePortAddresses: [primary, localhost, 127.0.0.1/32, '::1/128']\n", nil,
			[]string{loopback("[1] localhost"), loopback("[2] 127.0.0.1/32"), loopback("[3] ::1/128")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, warnings := mustComplete(t, tt.file, tt.args...)
			if diff := cmp.Diff(tt.want, warnings); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMasqueradingOfOtherModes(t *testing.T) {
	const iptables = "iptables: {masqueradeBit: 3, masqueradeAll: true}\n"
	unused := []string{"iptables.masqueradeBit has no effect in nftproxy", "iptables.masqueradeAll has no effect in nftproxy"}
	for _, tt := range []struct {
		name, file string
		mark       uint32
		all        bool
		warnings   []string
	}{
		{"iptables", "mode: iptables\n" + iptables, 1 << 3, true, []string{modeWarning("iptables")}},
		{"ipvs", "mode: ipvs\n" + iptables, 1 << 3, true, []string{modeWarning("ipvs")}},
		{"empty", iptables + "nftables: {masqueradeAll: false, masqueradeBit: null, syncPeriod: 0s}\n", 1 << 3, true, []string{modeWarning("")}},
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

func TestLogFeatures(t *testing.T) {
	c, _ := mustComplete(t, header+"mode: nftables\nfeatureGates: {LoggingAlphaOptions: true, ContextualLogging: false, Other: true}\n"+
		"logging: {options: {text: {infoBufferSize: 1Ki, splitStream: true}}}\n", "-v=3")
	if text := c.Kube.Logging.Options.Text; !text.SplitStream || text.InfoBufferSize.Value() != 1024 {
		t.Errorf("logging options of the file are gone: %+v", text)
	}
	if gate := c.LogFeatures(); !gate.Enabled(logsapi.LoggingAlphaOptions) || gate.Enabled(logsapi.ContextualLogging) {
		t.Error("the gates are not as the file has them")
	}
}

func TestWriteRoundTrip(t *testing.T) {
	for name, file := range map[string]string{"kubeadm": readTestdata(t, "kubeadm.yaml"), "full": fullFile} {
		t.Run(name, func(t *testing.T) {
			first, _ := mustComplete(t, file)
			path := filepath.Join(t.TempDir(), "written.yaml")
			if err := first.Write(path); err != nil {
				t.Fatal(err)
			}
			written, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			second, warnings := mustComplete(t, string(written))
			if len(warnings) != 0 {
				t.Errorf("warnings: %q", warnings)
			}
			if diff := cmp.Diff(first.Kube, second.Kube); diff != "" {
				t.Errorf("(-first +second):\n%s", diff)
			}
			if first.MinSyncPeriodSet != second.MinSyncPeriodSet {
				t.Errorf("MinSyncPeriodSet: first %v, second %v", first.MinSyncPeriodSet, second.MinSyncPeriodSet)
			}
		})
	}
}

// FuzzLoad holds that no file makes loading panic, and that what is valid can be
// used, written and read again.
func FuzzLoad(f *testing.F) {
	for _, seed := range []string{
		"", "{", header, fullFile, header + "clusterCIDR: '::ffff:10.0.0.0/104'\n", header + "featureGates: {AllAlpha: true}\n",
		header + "logging: {format: json, flushFrequency: -1}\nnodePortAddresses: [localhost, 1.2.3.4/0]\n",
	} {
		f.Add([]byte(seed))
	}
	stock, err := os.ReadFile("testdata/kubeadm.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(stock)
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "config")
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		c, _, err := (&Options{configFile: path, settings: NewOptions().settings, logging: NewOptions().logging}).Complete()
		if err != nil {
			return
		}
		c.ClusterCIDRs()
		c.NodePortAddresses()
		c.NodeIP()
		c.MasqueradeMark()
		c.LogFeatures()
		if err := c.Write(path); err != nil {
			t.Fatal(err)
		}
		again, _, err := (&Options{configFile: path, settings: NewOptions().settings, logging: NewOptions().logging}).Complete()
		if err != nil {
			t.Fatalf("read again: %v", err)
		}
		if diff := cmp.Diff(c.Kube, again.Kube); diff != "" {
			t.Errorf("(-first +second):\n%s", diff)
		}
	})
}
