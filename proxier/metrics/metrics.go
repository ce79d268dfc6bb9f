// Package metrics is what nftproxy reports to Prometheus.
//
// Metrics whose names begin with kubeproxy_, kubernetes_ or rest_client_ are those of kube-proxy, with its
// types, labels and buckets, so that dashboards and alerts made for kube-proxy keep working. Metrics that
// begin with nftproxy_ are our own. docs/metrics.md describes all of them for users.
//
// The daemon makes one [Metrics], sets the exported fields and calls the methods; each of them says what it
// counts. All of that is safe for concurrent use, except SetFrontends, which is for one goroutine.
//
// testdata lists every metric. The end-to-end test TestMetrics compares the lists with the page of a running
// daemon, and the tests here compare them with the registry and with docs/metrics.md. Start reading at [New].
package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/nftproxy/nftproxy/rules/service"
)

// Metrics are all metrics of one proxier, in a registry of their own.
type Metrics struct {
	Registry *prometheus.Registry

	EndpointChanges        prometheus.Counter // EndpointSlice events
	EndpointChangesPending prometheus.Gauge   // those that no sync has taken yet
	ServiceChanges         prometheus.Counter // Service events
	ServiceChangesPending  prometheus.Gauge   // those that no sync has taken yet
	Services               prometheus.Gauge   // programmed Services
	FrontendConflicts      prometheus.Gauge   // frontends that more than one Service claims
	DriftRepaired          prometheus.Counter // repairs after another process changed the tables
	ConfigInvalid          prometheus.Gauge   // 1 while the changed configuration file is unusable

	families    []string
	kube        kubeProxy
	own         own
	connections *connections
	rest        restClient
	features    *prometheus.GaugeVec
}

// New returns the metrics of a proxier, without families.
func New() *Metrics {
	m := &Metrics{Registry: prometheus.NewRegistry()}
	r := registerer{m.Registry}
	m.EndpointChanges = r.counter(kubePrefix+"sync_proxy_rules_endpoint_changes_total",
		"EndpointSlice changes received.")
	m.EndpointChangesPending = r.gauge(kubePrefix+"sync_proxy_rules_endpoint_changes_pending",
		"EndpointSlice changes that wait for a sync.")
	m.ServiceChanges = r.counter(kubePrefix+"sync_proxy_rules_service_changes_total",
		"Service changes received.")
	m.ServiceChangesPending = r.gauge(kubePrefix+"sync_proxy_rules_service_changes_pending",
		"Service changes that wait for a sync.")
	m.Services = r.gauge(ownPrefix+"services", "Programmed Services.")
	m.FrontendConflicts = r.gauge(ownPrefix+"frontend_conflicts",
		"Frontends that more than one Service claims. The strongest kind has them: ClusterIP, nodePort, "+
			"load-balancer IP, external IP; then the oldest Service.")
	m.DriftRepaired = r.counter(ownPrefix+"drift_repaired_total",
		"Repairs after another process changed nftproxy's tables.")
	m.ConfigInvalid = r.gauge(ownPrefix+"config_invalid",
		"Whether the configuration file has changed to one that cannot be used (1) or not (0).")
	m.kube = newKubeProxy(r)
	m.own = newOwn(r)
	m.connections = m.newConnections()
	m.Registry.MustRegister(m.connections)
	m.rest = newRESTClient(r)
	m.features = r.gaugeVec(componentPrefix+"feature_enabled",
		"Whether a feature gate is on (1) or off (0), with its stage.", "name", "stage")
	buildInfo(r)
	m.Registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

// SetFamilies sets the families that are programmed; only these have series. kube-proxy has a proxier for
// each family, each with its own series; nftproxy programs all families in one transaction, whose duration
// and result count for each family. Call it before the methods that record something.
func (m *Metrics) SetFamilies(families []service.Family) {
	m.families = nil
	for _, f := range families {
		m.families = append(m.families, f.APIName())
	}
	m.kube.startAtZero(m.families)
}

// Handler serves the registry in the formats of Prometheus. If a collector fails, it serves the others.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.Registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

// registerer makes metrics and registers them. It panics if two have the same name, which no input can cause.
type registerer struct{ to *prometheus.Registry }

func (r registerer) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	r.to.MustRegister(c)
	return c
}

func (r registerer) gauge(name, help string) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	r.to.MustRegister(g)
	return g
}

func (r registerer) counterVec(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	r.to.MustRegister(c)
	return c
}

func (r registerer) gaugeVec(name, help string, labels ...string) *prometheus.GaugeVec {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	r.to.MustRegister(g)
	return g
}

func (r registerer) histogramVec(
	name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	r.to.MustRegister(h)
	return h
}
