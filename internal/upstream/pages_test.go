package upstream

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apiserver/pkg/server/flagz"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/apiserver/pkg/server/routes"
	"k8s.io/apiserver/pkg/server/statusz"
	util "k8s.io/apiserver/pkg/util/compatibility"
	"k8s.io/component-base/compatibility"
	"k8s.io/component-base/logs"
	"k8s.io/component-base/metrics/prometheus/slis"

	"github.com/nftproxy/nftproxy/proxier/health"
)

const (
	component     = "nftproxy"
	binaryVersion = "0.1.0" // upstream, a version has three numbers
)

// TestMain keeps upstream from logging each request that it refuses.
func TestMain(m *testing.M) {
	runtime.ErrorHandlers = nil
	m.Run()
}

type flags map[string]string

func (f flags) GetFlagz() map[string]string { return f }

func someFlags() flags {
	return flags{"v": "2", "cluster-cidr": "10.244.0.0/16,fd00::/56", "config": "", "hostname-override": "<a&b>"}
}

// kubeProxyPages returns the pages as kube-proxy 1.37.1 installs them (cmd/kube-proxy/app/server.go,
// serveMetrics), without those that kube-proxy writes itself.
func kubeProxyPages() http.Handler {
	m := mux.NewPathRecorderMux(component)
	healthz.InstallHandler(m)
	slis.SLIMetricsWithReset{}.Install(m)
	m.Handle("/proxyMode", http.NotFoundHandler())
	m.Handle("/metrics", http.NotFoundHandler())
	routes.DebugFlags{}.Install(m, "v", routes.StringFlagPutHandler(logs.GlogSetter))
	m.Handle("/configz", http.NotFoundHandler())
	flagz.Install(m, component, someFlags())
	effective := compatibility.NewEffectiveVersionFromString(binaryVersion, "", "")
	effective.SetEmulationVersion(util.DefaultBuildEffectiveVersion().EmulationVersion())
	statusz.Install(m, component, statusz.NewRegistry(effective, statusz.WithListedPaths(m.ListedPaths())))
	return m
}

func nftproxyPages() http.Handler {
	return health.MetricsHandler(health.MetricsOptions{
		Metrics: http.NotFoundHandler(), Flags: someFlags(), Version: binaryVersion, Profiling: true})
}

type answer struct {
	Code   int
	Header http.Header
	Body   string
}

func ask(t *testing.T, h http.Handler, method, path string, header http.Header, body string) answer {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header = header
	h.ServeHTTP(w, r)
	resp := w.Result()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(text)}
}

// accepts returns Accept headers for a kind: those with which each form is served, and those that are
// refused. It leaves out those for which upstream negotiates the form of the refusal: nftproxy always refuses
// in indented JSON.
func accepts(kind string) []string {
	object := func(media, version string) string {
		return fmt.Sprintf("%s;v=%s;g=config.k8s.io;as=%s", media, version, kind)
	}
	return []string{
		"", " ", "text/plain", "*/*", "text/*", "text/html, text/plain;q=0.9, */*;q=0.8", "text/plain;as=" + kind,
		object("application/json", "v1beta1"), object("application/json", "v1alpha1"),
		object("application/json", "v1"), object("application/yaml", "v1beta1"),
		object("application/yaml", "v1alpha1"), object("application/*", "v1beta1"),
		object("application/json", "v1beta1") + ";pretty=1", object("*/*", "v1beta1"),
		object("application/json", "v1beta1") + ";stream=watch",
		object("application/json", "v1beta1") + ";sv=v1", object("application/json", "v1beta1") + ";other=x",
		"application/json;q=0.5, text/plain;q=0.4",
		"application/vnd.kubernetes.protobuf", "text/html", "image/*",
	}
}

// TestZpages compares /flagz and /statusz. Upstream puts one of four delimiters at random between a name and
// its value, so that nobody parses the text; nftproxy always uses the same one.
func TestZpages(t *testing.T) {
	ours := nftproxyPages()
	for path, kind := range map[string]string{"/flagz": "Flagz", "/statusz": "Statusz"} {
		for _, accept := range accepts(kind) {
			for _, agent := range []string{"", "curl/8.0"} {
				header := http.Header{"User-Agent": {agent}}
				if accept != "" {
					header.Set("Accept", accept)
				}
				comparesUntilEqual(t, ours, path, header)
			}
		}
		for _, query := range []string{"?pretty", "?pretty=true", "?pretty=false", "?pretty=x"} {
			header := http.Header{"Accept": {"application/json;v=v1beta1;g=config.k8s.io;as=" + kind}}
			comparesUntilEqual(t, ours, path+query, header)
		}
	}
}

// comparesUntilEqual asks upstream again while the answers differ, because of its delimiter, and because a
// second may pass between the two. The chance of never meeting the delimiter is 1 in 10^12.
func comparesUntilEqual(t *testing.T, ours http.Handler, path string, header http.Header) {
	t.Helper()
	var diff string
	for range 100 {
		want := ask(t, kubeProxyPages(), "GET", path, header, "")
		got := ask(t, ours, "GET", path, header, "")
		if diff = cmp.Diff(want, got); diff == "" {
			return
		}
	}
	t.Errorf("%s %q (-kube-proxy +nftproxy):\n%s", path, header, diff)
}

// TestPages compares the pages without negotiation. Both count health checks in the same metrics of
// component-base.
func TestPages(t *testing.T) {
	theirs, ours := kubeProxyPages(), nftproxyPages()
	for _, test := range []struct{ method, path, body string }{
		{"GET", "/healthz", ""},
		{"GET", "/healthz/ping", ""},
		{"GET", "/healthz/log", ""},
		{"GET", "/healthz?verbose", ""},
		{"GET", "/healthz?verbose=false", ""},
		{"GET", "/healthz?exclude=ping", ""},
		{"GET", "/healthz?verbose&exclude=ping", ""},
		{"GET", "/healthz?verbose&exclude=b&exclude=a&exclude=b", ""},
		{"GET", "/healthz?verbose&exclude=a&exclude=ping", ""},
		{"GET", "/metrics/other", ""},
		{"GET", "/readyz", ""},
		{"GET", "/", ""},
		{"GET", "/debug/flags", ""},
		{"GET", "/debug/flags/", ""},
		{"GET", "/debug/flags/v", ""},
		{"PUT", "/debug/flags/v", "0"},
		{"PUT", "/debug/flags/v", "much"},
		{"PUT", "/debug/flags/v", "-1"},
		{"PUT", "/debug/flags/v", ""},
		{"POST", "/debug/flags/v", "1"},
		{"DELETE", "/metrics/slis", ""},
	} {
		want := ask(t, theirs, test.method, test.path, http.Header{}, test.body)
		got := ask(t, ours, test.method, test.path, http.Header{}, test.body)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s %s (-kube-proxy +nftproxy):\n%s", test.method, test.path, diff)
		}
	}
}

// TestSLIs compares what /metrics/slis has after the same questions to /healthz.
func TestSLIs(t *testing.T) {
	started := regexp.MustCompile(`(?m)^process_start_time_seconds .*`)
	var pages []answer
	for _, h := range []http.Handler{kubeProxyPages(), nftproxyPages()} {
		ask(t, h, "DELETE", "/metrics/slis", http.Header{}, "")
		for _, path := range []string{"/healthz", "/healthz?verbose", "/healthz?exclude=ping", "/healthz/ping"} {
			ask(t, h, "GET", path, http.Header{}, "")
		}
		page := ask(t, h, "GET", "/metrics/slis", http.Header{}, "")
		page.Header.Del("Process-Start-Time-Unix")
		page.Body = started.ReplaceAllString(page.Body, "")
		pages = append(pages, page)
	}
	const counted = `kubernetes_healthchecks_total{name="ping",status="success",type="healthz"} 2`
	if !strings.Contains(pages[0].Body, counted) {
		t.Errorf("kube-proxy's page lacks %s:\n%s", counted, pages[0].Body)
	}
	if diff := cmp.Diff(pages[0], pages[1]); diff != "" {
		t.Errorf("(-kube-proxy +nftproxy):\n%s", diff)
	}
}
