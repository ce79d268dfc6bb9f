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
	for _, want := range []string{
		`"clusterCIDR" already set`, `unknown field "udpIdleTimeout"`, `unknown field "nftables.bit"`,
	} {
		if !strings.Contains(all, want) {
			t.Errorf("no warning with %s: %s", want, all)
		}
	}
	if c.Kube.ClusterCIDR != "10.1.0.0/16" || c.MasqueradeMark() != 1<<3 {
		t.Errorf("got %q, %#x; want the other fields in effect", c.Kube.ClusterCIDR, c.MasqueradeMark())
	}
}

func TestDecodeErrors(t *testing.T) {
	const want = "want kubeproxy.config.k8s.io/v1alpha1, KubeProxyConfiguration"
	for _, tt := range []struct {
		name, file string
		want       []string
	}{
		{"kind", "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeletConfiguration\n",
			[]string{"kind KubeletConfiguration", want}},
		{"version", "apiVersion: kubeproxy.config.k8s.io/v1\nkind: KubeProxyConfiguration\n",
			[]string{"apiVersion kubeproxy.config.k8s.io/v1,", want}},
		{"no kind", "mode: nftables\n", []string{"apiVersion or kind is missing", want}},
		{"no version", "kind: KubeProxyConfiguration\n", []string{"apiVersion or kind is missing", want}},
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
					t.Errorf("got %q, want %q in it", err, want)
				}
			}
		})
	}
	if _, _, err := complete(t, "", "--config=/does/not/exist"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if err := new(Config).Write("/does/not/exist"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Write to a missing directory: %v", err)
	}
}

func TestFeatures(t *testing.T) {
	c, _ := mustComplete(t, header+"mode: nftables\n"+
		"featureGates: {LoggingAlphaOptions: true, ContextualLogging: false, AllowServiceExternalIPs: false}\n"+
		"logging: {options: {text: {infoBufferSize: 1Ki, splitStream: true}}}\n", "-v=3")
	if text := c.Kube.Logging.Options.Text; !text.SplitStream || text.InfoBufferSize.Value() != 1024 {
		t.Errorf("lost the logging options of the file: %+v", text)
	}
	gate := c.Features()
	if !gate.Enabled(logsapi.LoggingAlphaOptions) || gate.Enabled(logsapi.ContextualLogging) {
		t.Error("the gates differ from those of the file")
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
				t.Errorf("MinSyncPeriodSet: first %v, second %v",
					first.MinSyncPeriodSet, second.MinSyncPeriodSet)
			}
		})
	}
}

// FuzzLoad checks that no file makes loading panic, and that a valid configuration can be used, written and
// read again.
func FuzzLoad(f *testing.F) {
	for _, seed := range []string{
		"", "{", header, fullFile, header + "clusterCIDR: '::ffff:10.0.0.0/104'\n",
		header + "featureGates: {AllAlpha: true}\n",
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
		o := NewOptions()
		o.config.ConfigFile = path
		c, _, err := o.Complete()
		if err != nil {
			return
		}
		c.ClusterCIDRs()
		c.NodePortAddresses()
		c.NodeIP()
		c.MasqueradeMark()
		c.Features()
		if err := c.Write(path); err != nil {
			t.Fatal(err)
		}
		again, _, err := o.Complete()
		if err != nil {
			t.Fatalf("read again: %v", err)
		}
		if diff := cmp.Diff(c.Kube, again.Kube); diff != "" {
			t.Errorf("(-first +second):\n%s", diff)
		}
	})
}
