package health

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/pprof"
)

const (
	proxyMode = "nftables"
	// configName is the key of kube-proxy's configuration on /configz.
	configName = "kubeproxy.config.k8s.io"
)

// MetricsOptions are the contents of the metrics address.
type MetricsOptions struct {
	Metrics   http.Handler // /metrics
	Config    any          // /configz: the KubeProxyConfiguration in effect, with kind and apiVersion
	Profiling bool         // /debug/pprof/
}

// MetricsHandler serves the pages of the metrics address: /metrics, /healthz (ok while the process answers),
// /proxyMode, /configz and, with Profiling, /debug/pprof/.
func MetricsHandler(opts MetricsOptions) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", opts.Metrics)
	mux.HandleFunc("/healthz", text("ok"))
	mux.HandleFunc("/proxyMode", text(proxyMode))
	mux.HandleFunc("/configz", func(w http.ResponseWriter, _ *http.Request) {
		body, err := json.Marshal(map[string]any{configName: opts.Config})
		writeJSON(w, http.StatusOK, body, err)
	})
	if opts.Profiling {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}

func text(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, _ = io.WriteString(w, body)
	}
}
