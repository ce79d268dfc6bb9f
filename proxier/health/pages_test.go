package health

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/klog/v2"
	"k8s.io/kube-proxy/config/v1alpha1"
)

func TestMetricsHandler(t *testing.T) {
	config := &v1alpha1.KubeProxyConfiguration{
		Mode:        "nftables",
		ClusterCIDR: "10.244.0.0/16",
	}
	config.Kind, config.APIVersion = "KubeProxyConfiguration", "kubeproxy.config.k8s.io/v1alpha1"
	type page struct {
		Code  int
		Type  string
		Start string // of the body
	}
	const (
		configz = `{"kubeproxy.config.k8s.io":{"kind":"KubeProxyConfiguration",` +
			`"apiVersion":"kubeproxy.config.k8s.io/v1alpha1",`
		prometheusText = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
	)
	tests := []struct {
		path      string
		profiling bool
		want      page
	}{
		{"/metrics", false, page{200, plainText, "metrics page"}},
		{"/metrics/slis", false, page{200, prometheusText, "# HELP process_start_time_seconds "}},
		{"/healthz", false, page{200, plainText, "ok"}},
		{"/healthz?verbose", false, page{200, plainText, "[+]ping ok\nhealthz check passed\n"}},
		{"/healthz?verbose&exclude=ping&exclude=log", false, page{200, plainText,
			"[+]ping excluded: ok\nwarn: some health checks cannot be excluded: no matches for \"log\"\n"}},
		{"/healthz/ping", false, page{200, plainText, "ok"}},
		{"/healthz/other", false, page{404, plainText, "404 page not found\n"}},
		{"/proxyMode", false, page{200, plainText, "nftables"}},
		{"/configz", false, page{200, "application/json", configz}},
		{"/", false, page{404, plainText, "404 page not found\n"}},
		{"/flagz", false, page{200, plainText, "\nnftproxy flagz\nWarning: This endpoint "}},
		{"/statusz", false, page{200, plainText, "\nnftproxy statusz\nWarning: This endpoint "}},
		{"/debug/flags", false, page{404, plainText, "404 page not found\n"}},
		{"/debug/flags/v", false, page{404, plainText, "404 page not found\n"}},
		{"/debug/pprof/", false, page{404, plainText, "404 page not found\n"}},
		{"/debug/pprof/profile", false, page{404, plainText, "404 page not found\n"}},
		{"/debug/pprof/", true, page{200, "text/html; charset=utf-8", "<html>"}},
		{"/debug/pprof/goroutine?debug=1", true, page{200, plainText, "goroutine profile: total "}},
		{"/debug/pprof/profile?seconds=1", true, page{200, "application/octet-stream", "\x1f\x8b"}},
		{"/debug/pprof/trace?seconds=0.01", true, page{200, "application/octet-stream", "go 1."}},
		{"/debug/flags", true, page{200, "text/html; charset=utf-8", "<html>"}},
		{"/debug/flags/v", true, page{406, "text/plain", "unsupported http method\n"}},
		{"/debug/pprof/symbol", true, page{200, plainText, "num_symbols: 1\n"}},
	}
	for _, test := range tests {
		w := httptest.NewRecorder()
		options := MetricsOptions{Metrics: text("metrics page"), Config: config,
			Flags: map[string]string{"v": "2"}, Version: "v0.1.0", Profiling: test.profiling}
		MetricsHandler(options).ServeHTTP(w, httptest.NewRequest("GET", test.path, nil))
		body := w.Body.String()
		got := page{w.Code, w.Header().Get("Content-Type"), body[:min(len(body), len(test.want.Start))]}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s, profiling %v (-want +got):\n%s", test.path, test.profiling, diff)
		}
	}
}

// TestPlainPages checks that the pages that programs compare have exactly one word.
func TestPlainPages(t *testing.T) {
	handler := MetricsHandler(MetricsOptions{Metrics: http.NotFoundHandler()})
	for path, want := range map[string]string{"/healthz": "ok", "/proxyMode": "nftables"} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if got := w.Body.String(); got != want {
			t.Errorf("%s answers %q, want %q", path, got, want)
		}
		if got := w.Header().Get("X-Content-Type-Options"); got != "nosniff" {
			t.Errorf("%s: X-Content-Type-Options %q, want nosniff", path, got)
		}
	}
}

// TestConfigz serves a configuration that JSON cannot represent: the answer is an error, not half a page.
func TestConfigz(t *testing.T) {
	w := httptest.NewRecorder()
	handler := MetricsHandler(MetricsOptions{Metrics: http.NotFoundHandler(), Config: func() {}})
	handler.ServeHTTP(w, httptest.NewRequest("GET", "/configz", nil))
	if w.Code != http.StatusInternalServerError {
		t.Errorf("status %d, want 500", w.Code)
	}
}

// TestPagesLeftOut has the options for no /flagz and no /statusz.
func TestPagesLeftOut(t *testing.T) {
	handler := MetricsHandler(MetricsOptions{Metrics: http.NotFoundHandler()})
	for _, path := range []string{"/flagz", "/statusz"} {
		if w := fetch(handler, path, ""); w.Code != http.StatusNotFound {
			t.Errorf("%s: status %d, want 404", path, w.Code)
		}
	}
}

// TestZpages asks for each form of the pages.
func TestZpages(t *testing.T) {
	handler := MetricsHandler(MetricsOptions{Metrics: http.NotFoundHandler(), Version: "v0.1.0",
		Flags: map[string]string{"v": "2", "config": "/a"}})
	const (
		flags      = ";g=config.k8s.io;v=v1beta1;as=Flagz"
		status     = ";g=config.k8s.io;v=v1beta1;as=Statusz"
		jsonObject = `{"kind":"Flagz","apiVersion":"config.k8s.io/v1beta1","metadata":{"name":"nftproxy"},` +
			`"flags":{"config":"/a","v":"2"}}` + "\n"
		yamlObject = "\nkind: Statusz\nmetadata:\n  name: nftproxy\npaths:\n" +
			"- /configz\n- /flagz\n- /healthz\n- /metrics\n- /proxyMode\n"
	)
	for _, test := range []struct{ path, accept, typ, part string }{
		{"/flagz", "", plainText, "debugging purposes only.\nconfig=/a\nv=2\n"},
		{"/flagz", "*/*", plainText, "config=/a\nv=2\n"},
		{"/flagz", "application/json" + flags, "application/json" + flags, jsonObject},
		{"/flagz", "application/yaml" + flags, "application/yaml" + flags, "\nkind: Flagz\n"},
		{"/flagz", "application/json" + status, "application/json", `"code": 406`},
		{"/flagz", "application/json", "application/json", `"code": 406`},
		{"/flagz", "application/json, text/plain", plainText, "config=/a\n"},
		{"/statusz", "", plainText, "\nBinary version: v0.1.0\nEmulation version: 1."},
		{"/statusz", "text/*", plainText, "\nPaths: /configz /flagz /healthz /metrics /proxyMode\n"},
		{"/statusz", "application/json" + status, "application/json" + status, `"binaryVersion":"v0.1.0"`},
		{"/statusz", "application/json;pretty=1" + status, "application/json" + status,
			"\n  \"binaryVersion\": \"v0.1.0\""},
		{"/statusz", "application/yaml" + status, "application/yaml" + status, yamlObject},
	} {
		w := fetch(handler, test.path, test.accept)
		if got := w.Header().Get("Content-Type"); got != test.typ || !strings.Contains(w.Body.String(), test.part) {
			t.Errorf("%s, Accept %q: type %q, want %q; body %q, want %q in it",
				test.path, test.accept, got, test.typ, w.Body, test.part)
		}
	}
}

// fetch asks for a page with an Accept header, unless that is empty.
func fetch(handler http.Handler, path, accept string) *httptest.ResponseRecorder {
	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", path, nil)
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	handler.ServeHTTP(w, r)
	return w
}

// TestVerbosity sets the verbosity of the log.
func TestVerbosity(t *testing.T) {
	handler := MetricsHandler(MetricsOptions{Metrics: http.NotFoundHandler(), Profiling: true})
	put := func(body string) (int, string) {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest("PUT", "/debug/flags/v", strings.NewReader(body)))
		return w.Code, w.Body.String()
	}
	defer put("0")
	code, body := put("7")
	if code != 200 || body != "successfully set klog.logging.verbosity to 7\n" || !klog.V(7).Enabled() {
		t.Errorf("PUT 7: %d %q, V(7) %v", code, body, klog.V(7).Enabled())
	}
	for _, bad := range []string{"", "x", "-1", strings.Repeat("0", 100) + "3"} {
		if code, body := put(bad); code != 400 || klog.V(8).Enabled() || !klog.V(7).Enabled() {
			t.Errorf("PUT %q: %d %q", bad, code, body)
		}
	}
}
