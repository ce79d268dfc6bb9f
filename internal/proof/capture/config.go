package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/nftproxy/nftproxy/internal/lab"
)

const kubeconfigText = `apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: c}}]
clusters: [{name: c, cluster: {server: "http://%s"}}]
`

// writeConfig writes the configuration of a case for kube-proxy, and its kubeconfig, to the directory work.
// It returns the path of the configuration.
func writeConfig(work, dir, server string) (string, error) {
	config, err := caseConfig(dir)
	if err != nil {
		return "", err
	}
	kubeconfig := filepath.Join(work, "kubeconfig")
	if err := os.WriteFile(kubeconfig, fmt.Appendf(nil, kubeconfigText, server), 0o600); err != nil {
		return "", err
	}
	config["clientConnection"] = map[string]any{"kubeconfig": kubeconfig}
	config["hostnameOverride"] = lab.NodeName
	// The limits of connection tracking belong to the host.
	config["conntrack"] = map[string]any{
		"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}
	// kube-proxy waits for a second after each sync by default.
	nftables, _ := config["nftables"].(map[string]any)
	if nftables == nil {
		nftables = map[string]any{}
	}
	nftables["minSyncPeriod"], config["nftables"] = "10ms", nftables
	text, err := yaml.Marshal(config)
	if err != nil {
		return "", err
	}
	file := filepath.Join(work, "config.yaml")
	return file, os.WriteFile(file, text, 0o600)
}

// caseConfig returns the KubeProxyConfiguration of a case: its config.yaml, what its flags stand for, or that
// of a cluster with pod ranges of both families.
func caseConfig(dir string) (map[string]any, error) {
	text, err := os.ReadFile(filepath.Join(dir, "config.yaml"))
	if err == nil {
		config := map[string]any{}
		return config, yaml.Unmarshal(text, &config)
	}
	config := map[string]any{
		"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "nftables",
		"clusterCIDR": "10.244.0.0/16,fd00:10:244::/56",
	}
	flags, err := os.ReadFile(filepath.Join(dir, "flags"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, flag := range strings.Fields(string(flags)) {
		switch name, value, _ := strings.Cut(flag, "="); name {
		case "--cluster-cidr":
			config["clusterCIDR"] = value
		case "--healthz-bind-address":
			config["healthzBindAddress"] = value
		case "--allowed-external-cidrs": // kube-proxy does not have it
		default:
			return nil, fmt.Errorf("the field of kube-proxy's configuration for %s is not known here", name)
		}
	}
	return config, nil
}
