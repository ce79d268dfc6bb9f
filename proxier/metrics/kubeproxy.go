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

// kubeProxy has those metrics of kube-proxy 1.37 in nftables mode that have a label. kube-proxy has more in
// its other modes, which are not here.
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
	localhostListeners  *prometheus.GaugeVec
	localhostFailures   *prometheus.CounterVec
}

func newKubeProxy(r registerer) kubeProxy {
	buckets := prometheus.ExponentialBuckets(0.001, 2, 15) // 1 ms to 16.384 s
	return kubeProxy{
		syncDuration: r.histogramVec(kubePrefix+"sync_proxy_rules_duration_seconds",
			"Duration of syncs in seconds.", buckets, labelFamily),
		fullSyncDuration: r.histogramVec(kubePrefix+"sync_full_proxy_rules_duration_seconds",
			"Duration of full syncs in seconds. A full sync compares everything with the kernel.",
			buckets, labelFamily),
		partialSyncDuration: r.histogramVec(kubePrefix+"sync_partial_proxy_rules_duration_seconds",
			"Duration of partial syncs in seconds. A partial sync programs the Services that changed.",
			buckets, labelFamily),
		programmingDuration: r.histogramVec(kubePrefix+"network_programming_duration_seconds",
			"Seconds from the change of a pod or Service to the commit of the rules for it.",
			programmingBuckets(), labelFamily),
		lastSync: r.gaugeVec(kubePrefix+"sync_proxy_rules_last_timestamp_seconds",
			"When a sync last succeeded, in seconds since 1970.", labelFamily),
		lastQueued: r.gaugeVec(kubePrefix+"sync_proxy_rules_last_queued_timestamp_seconds",
			"When a sync was last requested, in seconds since 1970.", labelFamily),
		syncFailures: r.counterVec(kubePrefix+"sync_proxy_rules_nftables_sync_failures_total",
			"Failed syncs.", labelFamily),
		cleanupFailures: r.counterVec(kubePrefix+"sync_proxy_rules_nftables_cleanup_failures_total",
			"Failed deletions of stale chains, sets and clients.", labelFamily),
		noLocalEndpoints: r.gaugeVec(kubePrefix+"sync_proxy_rules_no_local_endpoints_total",
			"Service ports with traffic policy Local that have endpoints, but none on this node.",
			"traffic_policy", labelFamily),
		healthz: r.counterVec(kubePrefix+"proxy_healthz_total",
			"Answers to /healthz by HTTP status code.", "code"),
		livez: r.counterVec(kubePrefix+"proxy_livez_total",
			"Answers to /livez by HTTP status code.", "code"),
		conntrackDuration: r.histogramVec(kubePrefix+"conntrack_reconciler_sync_duration_seconds",
			"Duration of searches for stale flows in seconds.", buckets, labelFamily),
		conntrackDeleted: r.counterVec(kubePrefix+"conntrack_reconciler_deleted_entries_total",
			"Deleted stale flows.", labelFamily),
		localhostListeners: r.gaugeVec(kubePrefix+"nftables_localhost_nodeport_listeners",
			"Open listeners for nodePorts on loopback addresses.", labelFamily),
		localhostFailures: r.counterVec(
			kubePrefix+"nftables_localhost_nodeport_listener_creation_failures_total",
			"Failed attempts to listen for a nodePort on a loopback address.", labelFamily),
	}
}

// startAtZero creates the series of counters: rate and increase of Prometheus do not see the step to the
// first value of a series, so an alert would miss the first failure of a counter that appears with it.
func (k *kubeProxy) startAtZero(families []string) {
	for _, family := range families {
		for _, c := range []*prometheus.CounterVec{
			k.syncFailures, k.cleanupFailures, k.conntrackDeleted, k.localhostFailures,
		} {
			c.WithLabelValues(family)
		}
	}
}

// programmingBuckets returns the buckets of kube-proxy, up to 5 minutes. The bound 0 is one of them.
func programmingBuckets() []float64 {
	return slices.Concat(
		[]float64{0, 0.25, 0.5},
		prometheus.LinearBuckets(1, 1, 59),
		prometheus.LinearBuckets(60, 5, 12),
		prometheus.LinearBuckets(120, 30, 7),
	)
}

// SyncQueued records that a sync is requested now.
func (m *Metrics) SyncQueued() {
	for _, family := range m.families {
		m.kube.lastQueued.WithLabelValues(family).SetToCurrentTime()
	}
}

// SyncDone records a sync that ends now. The durations include those of failed syncs.
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

// CleanupFailed counts a failed deletion of stale chains, sets and clients.
func (m *Metrics) CleanupFailed() {
	for _, family := range m.families {
		m.kube.cleanupFailures.WithLabelValues(family).Inc()
	}
}

// NetworkProgrammed records how long after its trigger (the annotation
// endpoints.kubernetes.io/last-change-trigger-time of an EndpointSlice of this family) a change was
// committed. It ignores a family that is not programmed. A trigger from the future, by a clock of the control
// plane that is ahead of ours, counts as no time: the sum of a histogram must not fall.
func (m *Metrics) NetworkProgrammed(family service.Family, took time.Duration) {
	if label := family.APIName(); slices.Contains(m.families, label) {
		m.kube.programmingDuration.WithLabelValues(label).Observe(max(0, took).Seconds())
	}
}

// NoLocalEndpoints sets how many Service ports with internalTrafficPolicy or externalTrafficPolicy Local have
// endpoints, but none on this node.
func (m *Metrics) NoLocalEndpoints(family service.Family, internal, external int) {
	label := family.APIName()
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

// ConntrackReconciled records a search for stale flows and how many flows it deleted.
func (m *Metrics) ConntrackReconciled(family service.Family, took time.Duration, deleted int) {
	label := family.APIName()
	m.kube.conntrackDuration.WithLabelValues(label).Observe(took.Seconds())
	m.kube.conntrackDeleted.WithLabelValues(label).Add(float64(deleted))
}

// LocalhostNodePorts sets how many listeners for nodePorts are open on the loopback address of a family, and
// counts those that could not be opened.
func (m *Metrics) LocalhostNodePorts(family service.Family, open, failed int) {
	label := family.APIName()
	m.kube.localhostListeners.WithLabelValues(label).Set(float64(open))
	m.kube.localhostFailures.WithLabelValues(label).Add(float64(failed))
}
