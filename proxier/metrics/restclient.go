package metrics

import (
	"context"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	clientmetrics "k8s.io/client-go/tools/metrics"
)

// restClient has those metrics of client-go's requests to the API server that dashboards for kube-proxy show.
type restClient struct {
	requests           *prometheus.CounterVec
	duration           *prometheus.HistogramVec
	rateLimiterLatency *prometheus.HistogramVec
}

func newRESTClient(r registerer) restClient {
	// As in k8s.io/component-base/metrics/prometheus/restclient.
	buckets := []float64{0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60}
	return restClient{
		requests: r.counterVec("rest_client_requests_total",
			"Requests to the API server by status code, or <error> without an answer, method and host.",
			"code", "method", "host"),
		duration: r.histogramVec("rest_client_request_duration_seconds",
			"Duration of requests to the API server in seconds, without watches.", buckets, "verb", "host"),
		rateLimiterLatency: r.histogramVec("rest_client_rate_limiter_duration_seconds",
			"Seconds that requests waited because of the client's own rate limit.", buckets, "verb", "host"),
	}
}

// RESTClient returns the options with which clientmetrics.Register makes client-go count its requests here.
// Register works once in a process; later calls have no effect.
func (m *Metrics) RESTClient() clientmetrics.RegisterOpts {
	return clientmetrics.RegisterOpts{
		RequestResult:      resultMetric{m.rest.requests},
		RequestLatency:     latencyMetric{m.rest.duration},
		RateLimiterLatency: latencyMetric{m.rest.rateLimiterLatency},
	}
}

type resultMetric struct{ vec *prometheus.CounterVec }

func (r resultMetric) Increment(_ context.Context, code, method, host string) {
	r.vec.WithLabelValues(code, method, host).Inc()
}

type latencyMetric struct{ vec *prometheus.HistogramVec }

func (l latencyMetric) Observe(_ context.Context, verb string, u url.URL, latency time.Duration) {
	l.vec.WithLabelValues(verb, u.Host).Observe(latency.Seconds())
}
