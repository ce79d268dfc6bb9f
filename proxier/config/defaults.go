package config

import (
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/kube-proxy/config/v1alpha1"

	"github.com/nftproxy/nftproxy/proxier/address"
)

const (
	healthzPort = 10256
	metricsPort = 10249
)

// setDefaults fills in kube-proxy's defaults for mode nftables where k has no value.
// nftables.minSyncPeriod stays unset: the proxier has its own default.
func setDefaults(k *v1alpha1.KubeProxyConfiguration) {
	k.SetGroupVersionKind(v1alpha1.SchemeGroupVersion.WithKind(kind))
	// An invalid address counts as IPv6, as in kube-proxy.
	if addr, err := address.ParseAddr(k.BindAddress); k.BindAddress != "" && (err != nil || addr.Is6()) {
		setDefault(fieldOf(k, "healthzBindAddress"), "::")
		setDefault(fieldOf(k, "metricsBindAddress"), "::1")
	}
	for _, s := range settings() {
		if s.field != "" && s.variable == nil && s.def != nil && !s.late {
			setDefault(fieldOf(k, s.field), s.def)
		}
	}
	k.HealthzBindAddress = withPort(k.HealthzBindAddress, healthzPort)
	k.MetricsBindAddress = withPort(k.MetricsBindAddress, metricsPort)
	logsapi.SetRecommendedLoggingConfiguration(&k.Logging)
}

// setLateDefaults fills in the defaults that also replace an empty flag.
func setLateDefaults(k *v1alpha1.KubeProxyConfiguration) {
	for _, s := range settings() {
		if s.late {
			setDefault(fieldOf(k, s.field), s.def)
		}
	}
}
