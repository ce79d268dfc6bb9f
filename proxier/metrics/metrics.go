// Package metrics is what nftproxy tells Prometheus. The names that begin with
// kubeproxy_ and rest_client_ are kube-proxy's, with its types, labels and buckets, so
// that dashboards and alerts made for kube-proxy go on working; those that begin with
// nftproxy_ are its own.
package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	corev1 "k8s.io/api/core/v1"

	"github.com/nftproxy/nftproxy/rules/service"
)

// Metrics are all metrics of one proxier, in a registry of their own. The fields that
// are exported are set by whoever knows; what takes more than one call is a method.
// Everything is safe for concurrent use.
type Metrics struct {
	Registry *prometheus.Registry

	EndpointChanges        prometheus.Counter // EndpointSlice events
	EndpointChangesPending prometheus.Gauge   // those that a sync has yet to take up
	ServiceChanges         prometheus.Counter // Service events
	ServiceChangesPending  prometheus.Gauge   // those that a sync has yet to take up
	Services               prometheus.Gauge   // Services that are programmed
	FrontendConflicts      prometheus.Gauge   // frontends that a Service does not have because an older one has
	DriftRepaired          prometheus.Counter // differences found in the kernel and repaired

	families []string
	kube     kubeProxy
	own      own
	rest     restClient
}

// New returns the metrics of a proxier that programs families. kube-proxy has a
// proxier for each family, each with series of its own; nftproxy programs all families
// in one transaction, whose duration and outcome then count for each of them.
func New(families []service.Family) *Metrics {
	m := &Metrics{Registry: prometheus.NewRegistry()}
	for _, f := range families {
		m.families = append(m.families, familyLabel(f))
	}
	r := registerer{m.Registry}
	m.EndpointChanges = r.counter(kubePrefix+"sync_proxy_rules_endpoint_changes_total", "EndpointSlice changes seen.")
	m.EndpointChangesPending = r.gauge(kubePrefix+"sync_proxy_rules_endpoint_changes_pending", "EndpointSlice changes that are not programmed yet.")
	m.ServiceChanges = r.counter(kubePrefix+"sync_proxy_rules_service_changes_total", "Service changes seen.")
	m.ServiceChangesPending = r.gauge(kubePrefix+"sync_proxy_rules_service_changes_pending", "Service changes that are not programmed yet.")
	m.Services = r.gauge(ownPrefix+"services", "Services that are programmed.")
	m.FrontendConflicts = r.gauge(ownPrefix+"frontend_conflicts", "Frontends that a Service claims and an older Service has.")
	m.DriftRepaired = r.counter(ownPrefix+"drift_repaired_total", "Differences between the kernel's tables and the wanted ones that were repaired.")
	m.kube = newKubeProxy(r, m.families)
	m.own = newOwn(r)
	m.rest = newRESTClient(r)
	m.Registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

// Handler serves the registry in Prometheus's formats. A collector that fails does not
// hide the others.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.Registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

// familyLabel is the value of ip_family: the Kubernetes API's name for the family.
func familyLabel(f service.Family) string {
	if f == service.IPv4 {
		return string(corev1.IPv4Protocol)
	}
	return string(corev1.IPv6Protocol)
}

// registerer makes metrics and registers them. It panics at a name that is there
// twice, which no input can bring about.
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

func (r registerer) histogramVec(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	r.to.MustRegister(h)
	return h
}
