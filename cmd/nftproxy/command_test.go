package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	logsapi "k8s.io/component-base/logs/api/v1"
)

// execute runs the command with the arguments and returns its output.
func execute(t *testing.T, args ...string) (string, error) {
	t.Helper()
	if err := logsapi.ResetForTest(nil); err != nil { // a process can set up logging only once
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := newCommand()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

const demo = "../../testdata/demo"

func TestDryRun(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		out, err := execute(t, "--dry-run", "--source="+demo, "--hostname-override=node-a",
			"--cluster-cidr=10.244.0.0/16", "--logging-format="+format)
		if err != nil || !strings.Contains(out, `comment "default/web:http" : 4c00:`) {
			t.Errorf("%s: error %v, output %.200s", format, err, out)
		}
	}
}

func TestWriteConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	if _, err := execute(t, "--write-config-to="+file, "--cluster-cidr=10.1.0.0/16"); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(data), "clusterCIDR: 10.1.0.0/16") {
		t.Errorf("error %v, file %s", err, data)
	}
}

func TestBadUse(t *testing.T) {
	for want, args := range map[string][]string{
		"--dry-run needs --source":              {"--dry-run"},
		"--source is required":                  {"diff"},
		"unknown flag":                          {"--no-such-flag"},
		"no such file":                          {"--dry-run", "--source=/no/such/dir", "--hostname-override=a"},
		"clusterCIDR":                           {"--dry-run", "--source=" + demo, "--cluster-cidr=nonsense"},
		"must be text or json":                  {"check", "-o", "yaml"},
		"unrecognized feature gate: Nonesuch":   {"--feature-gates=Nonesuch=true"},
		"feature is locked to true":             {"--feature-gates=NFTablesProxyMode=false"},
		`--allowed-external-cidrs: "192.0.2.1"`: {"--allowed-external-cidrs=192.0.2.0/24,192.0.2.1"},
	} {
		if _, err := execute(t, args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: error %v, want one with %q", args, err, want)
		}
	}
}
