package config

import (
	"fmt"
	"maps"
	"slices"

	"k8s.io/kube-proxy/config/v1alpha1"

	"github.com/nftproxy/nftproxy/proxier/address"
)

func modeWarning(mode v1alpha1.ProxyMode) string {
	return fmt.Sprintf("mode is %q, but nftproxy always programs nftables; nodePortAddresses defaults to %q",
		mode, nodePortsPrimary)
}

// withoutEffect returns a warning for each setting of the defaulted k that has no effect and is not at its
// default. It names fields, also for flags, which it adds.
func withoutEffect(k *v1alpha1.KubeProxyConfiguration) (warnings []string) {
	for _, s := range changed(k, func(s *setting) bool { return s.noEffect != "" }) {
		warnings = append(warnings, s.name()+" has no effect: "+s.noEffect)
	}
	for _, gate := range slices.Sorted(maps.Keys(k.FeatureGates)) {
		if !isEffective(gate) {
			warnings = append(warnings, fmt.Sprintf("featureGates.%s (--feature-gates) has no effect: "+
				"nftproxy does not have this feature", gate))
		}
	}
	return warnings
}

// changed returns the selected settings that are not at their default in the defaulted k.
func changed(k *v1alpha1.KubeProxyConfiguration, selected func(*setting) bool) (found []setting) {
	var defaults v1alpha1.KubeProxyConfiguration
	setDefaults(&defaults)
	for _, s := range settings() {
		if !selected(&s) {
			continue
		}
		// The text, because an empty list is the same as none.
		if fmt.Sprint(plain(fieldOf(k, s.field))) != fmt.Sprint(plain(fieldOf(&defaults, s.field))) {
			found = append(found, s)
		}
	}
	return found
}

// interfaceWarnings returns a warning if pods cannot be recognised by the configured interface.
func interfaceWarnings(c *Config) []string {
	if c.PodInterface() != noInterface {
		return nil
	}
	d := &c.Kube.DetectLocal
	field, name := "detectLocal.interfaceNamePrefix", d.InterfaceNamePrefix
	if c.Kube.DetectLocalMode == LocalModeBridgeInterface {
		field, name = "detectLocal.bridgeInterface", d.BridgeInterface
	}
	return []string{fmt.Sprintf("%s: no interface can have the name %q, so no traffic counts as "+
		"that of a pod", field, name)}
}

// loopbackWarnings returns a warning for each loopback range of nodePortAddresses if the feature gate keeps
// nodePorts from being served there.
func loopbackWarnings(k *v1alpha1.KubeProxyConfiguration) (warnings []string) {
	if localhostNodePorts(k.FeatureGates) {
		return nil
	}
	for i, s := range k.NodePortAddresses {
		p, err := address.ParsePrefix(s)
		if s == nodePortsLocalhost || err == nil && p.Addr().IsLoopback() {
			warnings = append(warnings, fmt.Sprintf("nodePortAddresses[%d] %s has no effect: "+
				"the feature gate %s is off", i, s, kubeProxyNFTablesLocalhostNodePorts))
		}
	}
	return warnings
}
