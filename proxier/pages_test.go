package proxier

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// webPage is what a test expects of a page: the status, the media type, and a part of the body.
type webPage struct {
	Status int
	Type   string
	Part   string
}

const (
	htmlText   = "text/html; charset=utf-8"
	plainText  = "text/plain; charset=utf-8"
	prometheus = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
	metricsURL = "http://127.0.0.1:10249"
)

// TestPages fetches each page of the metrics address from a running daemon. awaitPage asked for /healthz, so
// that /metrics/slis has its check.
func TestPages(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	newLab(t, lab.Options{Here: true})
	startDaemon(t, webManifests(t, podA))
	awaitPage(t, metricsURL+"/healthz", time.Now().Add(10*time.Second))
	comparePages(t, map[string]webPage{
		"/healthz":         {200, plainText, "ok"},
		"/healthz?verbose": {200, plainText, "[+]ping ok\nhealthz check passed\n"},
		"/healthz/ping":    {200, plainText, "ok"},
		"/proxyMode":       {200, plainText, "nftables"},
		"/configz":         {200, "application/json", `{"kubeproxy.config.k8s.io":{`},
		"/metrics":         {200, prometheus, `kubernetes_build_info{build_date="`},
		"/metrics/slis":    {200, prometheus, `kubernetes_healthcheck{name="ping",type="healthz"} 1`},
		"/flagz":           {200, plainText, "\nhostname-override=node-a\nv=2\n"},
		"/statusz":         {200, plainText, "\nBinary version: v0.0.0-test\n"},
		"/status":          {200, htmlText, "<h1>node-a</h1>"},
		"/status.json":     {200, "application/json", `"node": "node-a"`},
		"/status/explain?target=default/web:80/tcp&from=node": {200, htmlText, "Service default/web, port 80/tcp"},
		"/status/explain?target=web":                          {400, htmlText, "want namespace/name"},
		"/status/":                                            {404, plainText, "404 page not found"},
		"/debug/pprof/":                                       {404, plainText, "404 page not found"},
		"/debug/flags/v":                                      {404, plainText, "404 page not found"},
		"/livez":                                              {404, plainText, "404 page not found"},
	})
}

// TestPagesByFeatureGate turns off the pages that have a feature gate, and profiling on.
func TestPagesByFeatureGate(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	newLab(t, lab.Options{Here: true})
	startDaemon(t, webManifests(t, podA), "--feature-gates=ComponentFlagz=false,ComponentStatusz=false",
		"--profiling")
	awaitPage(t, metricsURL+"/healthz", time.Now().Add(10*time.Second))
	comparePages(t, map[string]webPage{
		"/flagz":   {404, plainText, "404 page not found"},
		"/statusz": {404, plainText, "404 page not found"},
		"/metrics": {200, prometheus,
			`kubernetes_feature_enabled{name="ComponentStatusz",stage="BETA"} 0`},
		"/debug/pprof/": {200, "text/html; charset=utf-8", "<title>/debug/pprof/</title>"},
		"/debug/flags":  {200, "text/html; charset=utf-8", "<title>/debug/flags/</title>"},
	})
}

func comparePages(t *testing.T, pages map[string]webPage) {
	t.Helper()
	for path, want := range pages {
		resp, err := http.Get(metricsURL + path)
		if err != nil {
			t.Error(err)
			continue
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Error(err)
		}
		got := webPage{resp.StatusCode, resp.Header.Get("Content-Type"), want.Part}
		if !strings.Contains(string(body), want.Part) {
			got.Part = fmt.Sprintf("%.1000s", body)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
}

// awaitPage waits until the daemon serves the page.
func awaitPage(t *testing.T, url string, deadline time.Time) {
	t.Helper()
	for {
		resp, err := http.Get(url)
		if err == nil {
			resp.Body.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
