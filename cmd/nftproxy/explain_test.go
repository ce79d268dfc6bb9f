package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/proxier/explain"
)

const (
	explainDir = "../../testdata/explain"
	rulesDir   = "../../testdata/rules"
)

// explainCases are questions about what typically goes wrong: the manifests, the target and the client, and
// the exit code.
func explainCases() map[string][4]string {
	return map[string][4]string{
		"works":                     {"clusterip-tcp", "default/web", "pod", "0"},
		"works-ipv6":                {"clusterip-tcp", "[fd00:10:96::10]:80", "node", "0"},
		"no-endpoints":              {"no-endpoints", "default/empty", "pod", "1"},
		"wrong-target-port":         {"../explain/wrong-target-port.yaml", "default/web", "pod", "1"},
		"policy-local-none-here":    {"external-policy-local-none-here", "203.0.113.10:80", "outside", "1"},
		"policy-local-from-pod":     {"external-policy-local-none-here", "203.0.113.10:80", "pod", "0"},
		"source-range":              {"lb-source-ranges", "203.0.113.10:80", "192.0.2.101", "1"},
		"source-range-admitted":     {"lb-source-ranges", "203.0.113.10:80", "192.0.2.100", "0"},
		"hints":                     {"hints-zone", "default/web", "pod", "0"},
		"conflict":                  {"conflict-older-wins", "203.0.113.10:80", "outside", "0"},
		"external-ip-not-allowed":   {"external-ips-allowed-cidrs", "198.51.100.20:80", "outside", "3"},
		"pod-itself":                {"masquerade-hairpin", "default/web:http", "10.244.1.11", "0"},
		"headless":                  {"not-ours-headless", "default/db", "pod", "3"},
		"external-name":             {"not-ours-external-name", "default/outside", "pod", "3"},
		"service-proxy-name":        {"not-ours-service-proxy-name", "default/theirs", "pod", "3"},
		"no-such-service":           {"clusterip-tcp", "default/nonesuch", "pod", "3"},
		"no-such-port-of-a-service": {"clusterip-tcp", "default/web:https", "pod", "3"},
		"not-ready":                 {"readiness-only-ready", "default/web", "pod", "0"},
		"terminating":               {"readiness-none-ready-terminating", "default/web", "pod", "0"},
		"duplicates":                {"slices-merged-duplicates", "default/web", "pod", "0"},
		"affinity":                  {"affinity-cluster-ip", "default/web", "pod", "0"},
		"node-port":                 {"nodeport", "30080", "outside", "0"},
		"port-missing":              {"clusterip-port-missing", "10.96.0.10:81", "pod", "1"},
		"wrong-protocol":            {"clusterip-port-missing", "10.96.0.10:80/udp", "pod", "1"},
		"cluster-ip-of-nobody":      {"service-cidr-unallocated", "10.96.0.99:80", "pod", "1"},
		"scheduler-rr":              {"scheduler-rr", "default/web", "pod", "0"},
		"scheduler-mh":              {"scheduler-mh", "default/web", "pod", "0"},
		"scheduler-sh":              {"scheduler-sh", "203.0.113.10:80", "192.0.2.101", "0"},
		"scheduler-weights":         {"scheduler-weights", "default/web", "pod", "0"},
		"scheduler-weights-in-turn": {"scheduler-weights", "default/turns", "pod", "0"},
		"scheduler-weight-0":        {"scheduler-weight-0", "default/web", "pod", "0"},
		"scheduler-invalid":         {"scheduler-invalid", "default/lc", "pod", "0"},
		"invalid-part":              {"bad-objects", "default/bad-ranges", "pod", "0"},
	}
}

// TestExplain compares the answers with testdata/explain; -update writes them.
func TestExplain(t *testing.T) {
	for name, c := range explainCases() {
		t.Run(name, func(t *testing.T) {
			source := filepath.Join(rulesDir, c[0])
			if !strings.HasSuffix(source, ".yaml") {
				source = filepath.Join(source, "input.yaml")
			}
			args := []string{"explain", c[1], "--from=" + c[2], "--source=" + source,
				"--hostname-override=node-a", "--cluster-cidr=10.244.0.0/16,fd00:10:244::/56"}
			if flags, err := os.ReadFile(filepath.Join(rulesDir, c[0], "flags")); err == nil {
				args = append(args, strings.Fields(string(flags))...)
			}
			text, err := execute(t, args...)
			if got := fmt.Sprint(codeOf(err)); got != c[3] {
				t.Errorf("exit %s, want %s (%v)", got, c[3], err)
			}
			file := filepath.Join(explainDir, name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), text); diff != "" {
				t.Errorf("%s (-want +got), rewrite with -update:\n%s", file, diff)
			}
			sameInJSON(t, text, args)
		})
	}
}

// codeOf returns the exit code of an error.
func codeOf(err error) int {
	var code exitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	return 2
}

// sameInJSON checks that the JSON has the decisions of the text, in this order.
func sameInJSON(t *testing.T, text string, args []string) {
	t.Helper()
	out, _ := execute(t, append(args, "-o=json")...)
	var report explain.Report
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) != len(report.Decisions) {
		t.Fatalf("%d decisions, %d lines", len(report.Decisions), len(lines))
	}
	for i, d := range report.Decisions {
		if !strings.HasPrefix(lines[i], d.Subject+" ") || !strings.Contains(lines[i], d.Result) {
			t.Errorf("decision %+v, line %q", d, lines[i])
		}
	}
	if last := report.Decisions[len(lines)-1]; last.Subject != "verdict" || last.Result != report.Verdict {
		t.Errorf("the last line is %+v, want the verdict %s", last, report.Verdict)
	}
}

func TestExplainBadUse(t *testing.T) {
	source := []string{"--source=" + demo, "--hostname-override=node-a"}
	for want, args := range map[string][]string{
		"want namespace/name":   {"web"},
		"want an IP address":    {"default/web", "--from=nonsense"},
		"is not of the family":  {"10.96.0.80:80", "--from=fd00::1"},
		"must be text or json":  {"default/web", "-o=yaml"},
		"--probe and --source":  {"default/web", "--probe"},
		"accepts 1 arg":         {},
		"unknown flag":          {"default/web", "--nonsense"},
		"clusterCIDR":           {"default/web", "--cluster-cidr=nonsense"},
		"want namespace/name[:": {"10.96.0.80"},
	} {
		if _, err := execute(t, append(append([]string{"explain"}, args...), source...)...); err == nil ||
			!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "exit") {
			t.Errorf("%v: error %v, want %q", args, err, want)
		} else if codeOf(err) != 3 {
			t.Errorf("%v: exit code %d, want 3", args, codeOf(err))
		}
	}
}
