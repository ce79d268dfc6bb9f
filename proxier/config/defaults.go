package config

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/kube-proxy/config/v1alpha1"
	"k8s.io/utils/ptr"

	"github.com/nftproxy/nftproxy/proxier/address"
)

const (
	healthzPort = 10256
	metricsPort = 10249

	defaultMasqueradeBit       = 14
	defaultSyncPeriod          = 30 * time.Second
	defaultIPTablesMinSync     = time.Second
	defaultConfigSyncPeriod    = 15 * time.Minute
	defaultConntrackMaxPerCore = 32 * 1024
	defaultConntrackMin        = 128 * 1024
	// Half-closed flows outlive the FIN_WAIT timeouts of usual servers, so that
	// their ports are not translated anew while the peer still knows them.
	defaultCloseWait   = time.Hour
	defaultEstablished = 24 * time.Hour
)

// setDefaults fills in kube-proxy's defaults (for mode nftables) where k says
// nothing. nftables.minSyncPeriod stays unset: that default is the proxier's.
func setDefaults(k *v1alpha1.KubeProxyConfiguration) {
	k.SetGroupVersionKind(v1alpha1.SchemeGroupVersion.WithKind(kind))
	setDefault(&k.BindAddress, "0.0.0.0")
	healthz, metrics := "0.0.0.0", "127.0.0.1"
	if addr, err := address.ParseAddr(k.BindAddress); err != nil || addr.Is6() {
		healthz, metrics = "::", "::1"
	}
	setDefault(&k.HealthzBindAddress, healthz)
	setDefault(&k.MetricsBindAddress, metrics)
	k.HealthzBindAddress = withPort(k.HealthzBindAddress, healthzPort)
	k.MetricsBindAddress = withPort(k.MetricsBindAddress, metricsPort)

	setDefault(&k.ConfigSyncPeriod.Duration, defaultConfigSyncPeriod)
	setDefault(&k.ClientConnection.ContentType, "application/vnd.kubernetes.protobuf")
	setDefault(&k.ClientConnection.QPS, 5)
	setDefault(&k.ClientConnection.Burst, 10)
	setDefaultPtr(&k.OOMScoreAdj, -999)
	if k.FeatureGates == nil {
		k.FeatureGates = map[string]bool{}
	}
	logsapi.SetRecommendedLoggingConfiguration(&k.Logging)

	setDefaultPtr(&k.Conntrack.MaxPerCore, defaultConntrackMaxPerCore)
	setDefaultPtr(&k.Conntrack.Min, defaultConntrackMin)
	setDefaultPtr(&k.Conntrack.TCPEstablishedTimeout, metav1.Duration{Duration: defaultEstablished})
	setDefaultPtr(&k.Conntrack.TCPCloseWaitTimeout, metav1.Duration{Duration: defaultCloseWait})

	setDefaultPtr(&k.NFTables.MasqueradeBit, defaultMasqueradeBit)
	setDefault(&k.NFTables.SyncPeriod.Duration, defaultSyncPeriod)
	setDefaultPtr(&k.IPTables.MasqueradeBit, defaultMasqueradeBit)
	setDefaultPtr(&k.IPTables.LocalhostNodePorts, true)
	setDefault(&k.IPTables.SyncPeriod.Duration, defaultSyncPeriod)
	setDefault(&k.IPTables.MinSyncPeriod.Duration, defaultIPTablesMinSync)
	setDefault(&k.IPVS.SyncPeriod.Duration, defaultSyncPeriod)
}

// setLateDefaults fills in the defaults that count for flags given as empty as well.
func setLateDefaults(k *v1alpha1.KubeProxyConfiguration) {
	setDefault(&k.DetectLocalMode, LocalModeClusterCIDR)
	if len(k.NodePortAddresses) == 0 {
		k.NodePortAddresses = []string{nodePortsPrimary}
	}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func setDefaultPtr[T any](field **T, value T) {
	if *field == nil {
		*field = ptr.To(value)
	}
}
