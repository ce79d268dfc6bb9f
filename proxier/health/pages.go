package health

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"

	"k8s.io/component-base/logs"
	"k8s.io/component-base/metrics/prometheus/slis"
)

const (
	proxyMode = "nftables"
	// configName is the key of kube-proxy's configuration on /configz.
	configName = "kubeproxy.config.k8s.io"
	plainText  = "text/plain; charset=utf-8"
	// maxVerbosity is the longest body of a request that sets the verbosity of the log.
	maxVerbosity = 64
)

// MetricsOptions are the contents of the metrics address.
type MetricsOptions struct {
	Metrics http.Handler // /metrics
	// Status has the pages /status, /status.json and those below /status/. Nil leaves them out.
	Status http.Handler
	Config any // /configz: the KubeProxyConfiguration in effect, with kind and apiVersion
	// Flags are the command-line flags and their values for /flagz. Nil leaves the page out.
	Flags map[string]string
	// Version is the version of nftproxy for /statusz. An empty one leaves the page out.
	Version   string
	Profiling bool // /debug/pprof/ and /debug/flags
}

// handlers are the handlers of paths. A path that ends in a slash also has the paths below it.
type handlers map[string]http.Handler

// Handle adds a path. Packages of Kubernetes install their pages with it.
func (h handlers) Handle(path string, handler http.Handler) { h[path] = handler }

// topPaths returns the first elements of the paths, sorted.
func (h handlers) topPaths() []string {
	var top []string
	for path := range maps.Keys(h) {
		first, _, _ := strings.Cut(path[1:], "/")
		top = append(top, "/"+first)
	}
	slices.Sort(top)
	return slices.Compact(top)
}

// MetricsHandler serves the pages of the metrics address, which are those of kube-proxy 1.37: /metrics,
// /metrics/slis, /healthz (ok while the process answers), /healthz/ping, /proxyMode, /configz, /flagz and
// /statusz, and with Profiling /debug/pprof/ and /debug/flags.
func MetricsHandler(opts MetricsOptions) http.Handler {
	pages := handlers{
		"/metrics":      opts.Metrics,
		"/healthz":      http.HandlerFunc(serveChecks),
		"/healthz/ping": http.HandlerFunc(servePing),
		"/proxyMode":    text(proxyMode),
		"/configz": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			body, err := json.Marshal(map[string]any{configName: opts.Config})
			writeJSON(w, http.StatusOK, body, err)
		}),
	}
	if opts.Status != nil {
		for _, path := range []string{"/status", "/status.json", "/status/"} {
			pages[path] = opts.Status
		}
	}
	slis.SLIMetricsWithReset{}.Install(pages)
	if opts.Flags != nil {
		pages["/flagz"] = flagz(opts.Flags)
	}
	if opts.Version != "" {
		pages["/statusz"] = statusz(opts.Version, pages.topPaths()) // it does not list itself or /debug
	}
	if opts.Profiling {
		pages["/debug/pprof/"] = http.HandlerFunc(pprof.Index)
		pages["/debug/pprof/profile"] = http.HandlerFunc(pprof.Profile)
		pages["/debug/pprof/symbol"] = http.HandlerFunc(pprof.Symbol)
		pages["/debug/pprof/trace"] = http.HandlerFunc(pprof.Trace)
		pages["/debug/flags"] = http.HandlerFunc(serveDebugFlags)
		pages["/debug/flags/"] = http.HandlerFunc(serveDebugFlags)
		pages["/debug/flags/v"] = http.HandlerFunc(serveVerbosity)
	}
	mux := http.NewServeMux()
	for path, handler := range pages {
		mux.Handle(path, handler)
	}
	return mux
}

func text(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { writeText(w, body) }
}

func writeText(w http.ResponseWriter, body string) {
	w.Header().Set("Content-Type", plainText)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = io.WriteString(w, body)
}

func servePing(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }

// serveChecks serves /healthz of the metrics address. Its only check is ping, which passes whenever the
// process answers. /metrics/slis counts it. The query is that of Kubernetes' components: verbose lists the
// checks, exclude=NAME leaves one out.
func serveChecks(w http.ResponseWriter, r *http.Request) {
	const ping = "ping"
	query := r.URL.Query()
	result := "[+]ping ok\n"
	if slices.Contains(query["exclude"], ping) {
		result = "[+]ping excluded: ok\n"
	} else {
		// It returns no error other than nil.
		_ = slis.ObserveHealthcheck(context.Background(), ping, "healthz", slis.Success)
	}
	if !query.Has("verbose") {
		writeText(w, "ok")
		return
	}
	var unknown []string
	for _, name := range query["exclude"] {
		if name != ping {
			unknown = append(unknown, fmt.Sprintf("%q", name))
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		result += fmt.Sprintf("warn: some health checks cannot be excluded: no matches for %s\n",
			strings.Join(slices.Compact(unknown), ","))
	}
	writeText(w, result+"healthz check passed\n")
}

// serveDebugFlags lists the flags that a PUT changes.
func serveDebugFlags(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, `<html>
<head>
<title>/debug/flags/</title>
</head>
<body>
/debug/flags/<br>
<br>
flags:<br>
<table>
<tr>v<br>
</table>
<br>
full flags configurable<br>
</body>
</html>
`)
}

// serveVerbosity sets the verbosity of the log to the body of a PUT.
func serveVerbosity(w http.ResponseWriter, r *http.Request) {
	code, answer := http.StatusNotAcceptable, "unsupported http method"
	if r.Method == http.MethodPut {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxVerbosity))
		if err == nil {
			answer, err = logs.GlogSetter(string(body))
		}
		code = http.StatusOK
		if err != nil {
			code, answer = http.StatusBadRequest, err.Error()
		}
	}
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, answer+"\n")
}
