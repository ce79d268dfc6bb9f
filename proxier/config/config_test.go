package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/pflag"
)

const header = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"

// comparePrefix makes go-cmp compare addresses and prefixes by value.
var comparePrefix = cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})

// complete parses args as a command line and completes the options. If file is not empty, it is the content
// of the file of --config.
func complete(t *testing.T, file string, args ...string) (*Config, []string, error) {
	t.Helper()
	if file != "" {
		args = append(args, "--config", writeFile(t, file))
	}
	o := NewOptions()
	fs := pflag.NewFlagSet("nftproxy", pflag.ContinueOnError)
	fs.SetOutput(t.Output()) // for deprecation notices
	o.AddFlags(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatalf("parse %q: %v", args, err)
	}
	return o.Complete()
}

func mustComplete(t *testing.T, file string, args ...string) (*Config, []string) {
	t.Helper()
	c, warnings, err := complete(t, file, args...)
	if err != nil {
		t.Fatalf("complete: %v", err)
	}
	return c, warnings
}

func writeFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.conf")
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func readTestdata(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// checkGolden compares the file that c.Write writes with one of testdata.
func checkGolden(t *testing.T, c *Config, name string) {
	t.Helper()
	golden := filepath.Join("testdata", name)
	if *update {
		if err := c.Write(golden); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "written.yaml")
	if err := c.Write(path); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(readTestdata(t, name), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func TestDefaults(t *testing.T) {
	fromFlags, warnings := mustComplete(t, "")
	if len(warnings) != 0 {
		t.Errorf("warnings: %q", warnings)
	}
	checkGolden(t, fromFlags, "defaults.golden.yaml")

	fromFile, warnings := mustComplete(t, header+"mode: nftables\n")
	if len(warnings) != 0 {
		t.Errorf("warnings: %q", warnings)
	}
	if diff := cmp.Diff(fromFlags.Kube, fromFile.Kube); diff != "" {
		t.Errorf("an empty file and no flags differ (-flags +file):\n%s", diff)
	}
	if fromFlags.MinSyncPeriodSet || fromFile.MinSyncPeriodSet {
		t.Error("MinSyncPeriodSet is true, want false")
	}
}

func TestKubeadmFile(t *testing.T) {
	c, warnings := mustComplete(t, readTestdata(t, "kubeadm.yaml"))
	if diff := cmp.Diff([]string{modeWarning("")}, warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	checkGolden(t, c, "kubeadm.golden.yaml")
	want := []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:10:244::/56")}
	if diff := cmp.Diff(want, c.ClusterCIDRs(), comparePrefix); diff != "" {
		t.Errorf("ClusterCIDRs (-want +got):\n%s", diff)
	}
}

func TestDefaultAddressesByFamily(t *testing.T) {
	for _, tt := range []struct{ file, healthz, metrics string }{
		{"bindAddress: 192.0.2.1", "0.0.0.0:10256", "127.0.0.1:10249"},
		{"bindAddress: '2001:db8::1'", "[::]:10256", "[::1]:10249"},
		{"healthzBindAddress: 192.0.2.1\nmetricsBindAddress: '::'", "192.0.2.1:10256", "[::]:10249"},
		{"healthzBindAddress: '192.0.2.1:80'\nmetricsBindAddress: '[::1]:81'", "192.0.2.1:80", "[::1]:81"},
	} {
		t.Run(tt.file, func(t *testing.T) {
			c, _ := mustComplete(t, header+tt.file+"\n")
			if k := c.Kube; k.HealthzBindAddress != tt.healthz || k.MetricsBindAddress != tt.metrics {
				t.Errorf("got %s and %s, want %s and %s",
					k.HealthzBindAddress, k.MetricsBindAddress, tt.healthz, tt.metrics)
			}
		})
	}
}

func TestNodePortAddresses(t *testing.T) {
	for _, tt := range []struct {
		list    string
		primary bool
		want    []string
	}{
		{"", true, nil},
		{"primary", true, nil},
		{"primary,10.0.0.0/8", true, []string{"10.0.0.0/8"}},
		{"primary,localhost", true, []string{"127.0.0.0/8", "::1/128"}},
		{"all", false, []string{"0.0.0.0/0", "::/0"}},
		{"localhost", false, []string{"127.0.0.0/8", "::1/128"}},
		{"0.0.0.0/0,::/0", false, []string{"0.0.0.0/0", "::/0"}},
		{"192.0.2.9/24,010.1.0.0/16,10.1.0.0/16", false, []string{"10.1.0.0/16", "192.0.2.0/24", "::/0"}},
		{"2001:db8::/32", false, []string{"0.0.0.0/0", "2001:db8::/32"}},
	} {
		t.Run(tt.list, func(t *testing.T) {
			c, _ := mustComplete(t, "", "--nodeport-addresses", tt.list)
			var want []netip.Prefix
			for _, s := range tt.want {
				want = append(want, netip.MustParsePrefix(s))
			}
			primary, got := c.NodePortAddresses()
			if primary != tt.primary {
				t.Errorf("primary = %v", primary)
			}
			if diff := cmp.Diff(want, got, comparePrefix); diff != "" {
				t.Errorf("prefixes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLoopbackAddrs(t *testing.T) {
	for _, tt := range []struct{ list, gates, want string }{
		{"", "", ""},
		{"primary", "", ""},
		{"localhost", "", "127.0.0.1 ::1"},
		{"primary,localhost", "", "127.0.0.1 ::1"},
		{"127.0.0.0/8", "", "127.0.0.1"},
		{"127.0.0.53/32", "", "127.0.0.1"}, // as in kube-proxy
		{"::1/128", "", "::1"},
		{"::1/127", "", ""}, // the range begins with ::, as in kube-proxy
		{"126.0.0.0/7", "", ""},
		{"all", "", ""},
		{"0.0.0.0/0,127.0.0.0/8", "", "127.0.0.1"},
		{"192.0.2.0/24", "", ""},
		{"localhost", "KubeProxyNFTablesLocalhostNodePorts=true", "127.0.0.1 ::1"},
		{"localhost", "KubeProxyNFTablesLocalhostNodePorts=false", ""},
		{"localhost", "ContextualLogging=false", "127.0.0.1 ::1"},
	} {
		t.Run(tt.list+" "+tt.gates, func(t *testing.T) {
			c, _ := mustComplete(t, "", "--nodeport-addresses="+tt.list, "--feature-gates="+tt.gates)
			var got []string
			for _, addr := range c.LoopbackAddrs() {
				got = append(got, addr.String())
			}
			if diff := cmp.Diff(tt.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("addresses (-want +got):\n%s", diff)
			}
		})
	}
}

func TestViews(t *testing.T) {
	c, _ := mustComplete(t, "", "--iptables-masquerade-bit=31", "--masquerade-all",
		"--bind-address=2001:db8::5", "--cluster-cidr=10.0.0.0/8", "--detect-local-mode=NodeCIDR")
	if got := c.MasqueradeMark(); got != 0x80000000 {
		t.Errorf("MasqueradeMark = %#x", got)
	}
	if !c.MasqueradeAll() {
		t.Error("MasqueradeAll is false")
	}
	if got := c.NodeIP(); got != netip.MustParseAddr("2001:db8::5") {
		t.Errorf("NodeIP = %v", got)
	}
	if got := c.ClusterCIDRs(); got != nil {
		t.Errorf("ClusterCIDRs with detectLocalMode NodeCIDR = %v", got)
	}
	c, _ = mustComplete(t, "")
	if got := c.NodeIP(); got.IsValid() {
		t.Errorf("NodeIP by default = %v", got)
	}
	if got := c.MasqueradeMark(); got != 0x4000 {
		t.Errorf("MasqueradeMark by default = %#x", got)
	}
}

func TestNodeName(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, file, env string
		args            []string
		want            string
	}{
		{"flag first", header + "hostnameOverride: file\n", "env",
			[]string{"--hostname-override", " Flag "}, "flag"},
		{"then file", header + "hostnameOverride: File\n", "env", nil, "file"},
		{"then environment", header, "Env", nil, "env"},
		{"then host", "", "", nil, strings.ToLower(host)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("NODE_NAME", tt.env)
			c, _ := mustComplete(t, tt.file, tt.args...)
			got, err := c.NodeName()
			if err != nil || got != tt.want {
				t.Errorf("NodeName = %q, %v; want %q", got, err, tt.want)
			}
		})
	}
	if _, _, err := complete(t, "", "--hostname-override", " "); err == nil {
		t.Error("no error for a blank --hostname-override")
	}
}
