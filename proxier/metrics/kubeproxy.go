package metrics

import (
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nftproxy/nftproxy/rules/service"
)

const (
	kubePrefix  = "kubeproxy_"
	labelFamily = "ip_family"
)

// kubeProxy are the metrics that kube-proxy 1.36 has in nftables mode, as far as they
// have a label or take more than one call. Those of the other modes are not here.
type kubeProxy struct {
	syncDuration        *prometheus.HistogramVec
	fullSyncDuration    *prometheus.HistogramVec
	partialSyncDuration *prometheus.HistogramVec
	programmingDuration *prometheus.HistogramVec
	lastSync            *prometheus.GaugeVec
	lastQueued          *prometheus.GaugeVec
	syncFailures        *prometheus.CounterVec
	cleanupFailures     *prometheus.CounterVec
	noLocalEndpoints    *prometheus.GaugeVec
	healthz             *prometheus.CounterVec
	livez               *prometheus.CounterVec
	conntrackDuration   *prometheus.HistogramVec
	conntrackDeleted    *prometheus.CounterVec
}

func newKubeProxy(r registerer, families []string) kubeProxy {
	doubling := prometheus.ExponentialBuckets(0.001, 2, 15) // 1ms to 16.384s
	k := kubeProxy{
		syncDuration:        r.histogramVec(kubePrefix+"sync_proxy_rules_duration_seconds", "Duration of syncs in seconds.", doubling, labelFamily),
		fullSyncDuration:    r.histogramVec(kubePrefix+"sync_full_proxy_rules_duration_seconds", "Duration of full syncs in seconds.", doubling, labelFamily),
		partialSyncDuration: r.histogramVec(kubePrefix+"sync_partial_proxy_rules_duration_seconds", "Duration of partial syncs in seconds.", doubling, labelFamily),
		programmingDuration: r.histogramVec(kubePrefix+"network_programming_duration_seconds", "Seconds from the change of a pod or Service to the commit of what follows from it.", programmingBuckets(), labelFamily),
		lastSync:            r.gaugeVec(kubePrefix+"sync_proxy_rules_last_timestamp_seconds", "When a sync last succeeded, in seconds since 1970.", labelFamily),
		lastQueued:          r.gaugeVec(kubePrefix+"sync_proxy_rules_last_queued_timestamp_seconds", "When a sync was last asked for, in seconds since 1970.", labelFamily),
		syncFailures:        r.counterVec(kubePrefix+"sync_proxy_rules_nftables_sync_failures_total", "Syncs that failed.", labelFamily),
		cleanupFailures:     r.counterVec(kubePrefix+"sync_proxy_rules_nftables_cleanup_failures_total", "Removals of unused chains that failed.", labelFamily),
		noLocalEndpoints:    r.gaugeVec(kubePrefix+"sync_proxy_rules_no_local_endpoints_total", "Services with traffic policy Local that have endpoints, none of them on this node.", "traffic_policy", labelFamily),
		healthz:             r.counterVec(kubePrefix+"proxy_healthz_total", "Answers to /healthz by HTTP status code.", "code"),
		livez:               r.counterVec(kubePrefix+"proxy_livez_total", "Answers to /livez by HTTP status code.", "code"),
		conntrackDuration:   r.histogramVec(kubePrefix+"conntrack_reconciler_sync_duration_seconds", "Duration of the search for stale flows in seconds.", doubling, labelFamily),
		conntrackDeleted:    r.counterVec(kubePrefix+"conntrack_reconciler_deleted_entries_total", "Stale flows that were deleted.", labelFamily),
	}
	// Counters that are there from the beginning let an alert see the first failure.
	for _, family := range families {
		for _, c := range []*prometheus.CounterVec{k.syncFailures, k.cleanupFailures, k.conntrackDeleted} {
			c.WithLabelValues(family)
		}
	}
	return k
}

// programmingBuckets are kube-proxy's, from 0 to 5 minutes, with the 0 that it has.
func programmingBuckets() []float64 {
	return slices.Concat(
		[]float64{0, 0.25, 0.5},
		prometheus.LinearBuckets(1, 1, 59),
		prometheus.LinearBuckets(60, 5, 12),
		prometheus.LinearBuckets(120, 30, 7),
	)
}

// SyncQueued notes that a sync was asked for now.
func (m *Metrics) SyncQueued() {
	for _, family := range m.families {
		m.kube.lastQueued.WithLabelValues(family).SetToCurrentTime()
	}
}

// SyncDone notes a sync that ended now: whether it was full, how long it took, and how
// it ended. Those that failed count in the durations, too.
func (m *Metrics) SyncDone(full bool, took time.Duration, err error) {
	duration := m.kube.partialSyncDuration
	if full {
		duration = m.kube.fullSyncDuration
	}
	for _, family := range m.families {
		m.kube.syncDuration.WithLabelValues(family).Observe(took.Seconds())
		duration.WithLabelValues(family).Observe(took.Seconds())
		if err != nil {
			m.kube.syncFailures.WithLabelValues(family).Inc()
		} else {
			m.kube.lastSync.WithLabelValues(family).SetToCurrentTime()
		}
	}
}

// CleanupFailed notes that chains no longer used could not be removed.
func (m *Metrics) CleanupFailed() {
	for _, family := range m.families {
		m.kube.cleanupFailures.WithLabelValues(family).Inc()
	}
}

// NetworkProgrammed notes how long after its trigger (the annotation
// endpoints.kubernetes.io/last-change-trigger-time of an EndpointSlice of that family)
// a change was committed.
func (m *Metrics) NetworkProgrammed(family service.Family, took time.Duration) {
	m.kube.programmingDuration.WithLabelValues(familyLabel(family)).Observe(took.Seconds())
}

// NoLocalEndpoints sets how many Services (kube-proxy counts their ports) with
// internalTrafficPolicy or externalTrafficPolicy Local have endpoints, but none here.
func (m *Metrics) NoLocalEndpoints(family service.Family, internal, external int) {
	label := familyLabel(family)
	m.kube.noLocalEndpoints.WithLabelValues("internal", label).Set(float64(internal))
	m.kube.noLocalEndpoints.WithLabelValues("external", label).Set(float64(external))
}

// HealthzServed counts an answer to /healthz.
func (m *Metrics) HealthzServed(code int) {
	m.kube.healthz.WithLabelValues(strconv.Itoa(code)).Inc()
}

// LivezServed counts an answer to /livez.
func (m *Metrics) LivezServed(code int) {
	m.kube.livez.WithLabelValues(strconv.Itoa(code)).Inc()
}

// ConntrackReconciled notes one search for stale flows and how many it deleted.
func (m *Metrics) ConntrackReconciled(family service.Family, took time.Duration, deleted int) {
	label := familyLabel(family)
	m.kube.conntrackDuration.WithLabelValues(label).Observe(took.Seconds())
	m.kube.conntrackDeleted.WithLabelValues(label).Add(float64(deleted))
}
