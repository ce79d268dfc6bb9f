package source

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const testKubeconfig = `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: 'https://192.0.2.1:6443', insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: sesame}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`

func TestClientRequests(t *testing.T) {
	var got []string
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = []string{r.URL.Path, r.Header.Get("Authorization"), r.Header.Get("Accept"),
			r.Header.Get("Content-Type"), r.UserAgent(), string(body[:min(4, len(body))])}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"kind": "Event", "apiVersion": "v1", "metadata": {"name": "e"}}`)
	}))
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	server.StartTLS()
	defer server.Close()
	kubeconfig := t.TempDir() + "/kubeconfig"
	must(t, os.WriteFile(kubeconfig, []byte(testKubeconfig), 0o600))

	const path, json, protobuf = "/apis/events.k8s.io/v1/namespaces/shop/events",
		"application/json", "application/vnd.kubernetes.protobuf"
	for _, test := range []struct {
		name         string
		send, accept string
		want         []string
	}{
		{"defaults", "", "",
			[]string{path, "Bearer sesame", protobuf + "," + json, protobuf, "me", "k8s\x00"}},
		{"json", json, json, []string{path, "Bearer sesame", json, json, "me", `{"ki`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			client, err := NewClient(ClientConfig{Kubeconfig: kubeconfig, Master: server.URL, UserAgent: "me",
				ContentType: test.send, AcceptContentTypes: test.accept})
			must(t, err)
			event := &eventsv1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "shop"}}
			must(t, client.CreateEvent(t.Context(), event))
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("request (-want +got):\n%s", diff)
			}
		})
	}
}

func TestClientConnection(t *testing.T) {
	kubeconfig := t.TempDir() + "/kubeconfig"
	must(t, os.WriteFile(kubeconfig, []byte(testKubeconfig), 0o600))
	for _, test := range []struct {
		cfg  ClientConfig
		want string
	}{
		{ClientConfig{Kubeconfig: kubeconfig}, "https://192.0.2.1:6443"},
		{ClientConfig{Kubeconfig: kubeconfig, Master: "https://192.0.2.2"}, "https://192.0.2.2"},
		{ClientConfig{Master: "http://192.0.2.3"}, "http://192.0.2.3"},
	} {
		test.cfg.QPS, test.cfg.Burst = 7, 9
		c, err := test.cfg.connection()
		must(t, err)
		if c.Host != test.want || c.QPS != 7 || c.Burst != 9 {
			t.Errorf("%+v: host %s, QPS %v, burst %d", test.cfg, c.Host, c.QPS, c.Burst)
		}
	}
}

func TestClientErrors(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for want, cfg := range map[string]ClientConfig{
		"stat /nowhere/kubeconfig: no such file or directory": {Kubeconfig: "/nowhere/kubeconfig"},
		"unable to load in-cluster configuration":             {},
	} {
		want = "configure the API client: " + want
		if _, err := NewClient(cfg); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", cfg, err, want)
		}
	}
}

// TestPlaceholder shows that an address that was not filled in is refused before a request, with the place to
// fill it in.
func TestPlaceholder(t *testing.T) {
	kubeconfig := t.TempDir() + "/kubeconfig"
	text := strings.Replace(testKubeconfig, "192.0.2.1", "API-SERVER-ADDRESS", 1)
	must(t, os.WriteFile(kubeconfig, []byte(text), 0o600))
	for name, test := range map[string]struct {
		env string
		cfg ClientConfig
	}{
		"pod":        {env: "API-SERVER-ADDRESS"},
		"master":     {cfg: ClientConfig{Master: "https://API-SERVER-ADDRESS:6443"}},
		"kubeconfig": {cfg: ClientConfig{Kubeconfig: kubeconfig}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("KUBERNETES_SERVICE_HOST", test.env)
			t.Setenv("KUBERNETES_SERVICE_PORT", "6443")
			_, err := NewClient(test.cfg)
			if err == nil || !strings.Contains(err.Error(), "set it, for example in overlays/generic/") {
				t.Errorf("error %v", err)
			}
		})
	}
	_, err := NewClient(ClientConfig{Kubeconfig: kubeconfig, Master: "https://192.0.2.1"})
	must(t, err) // the flag replaces the address
}

// TestRootCause shows that the port of a lookup does not make its error another one.
func TestRootCause(t *testing.T) {
	lookup := func(name, text string) error {
		dns := &net.DNSError{Err: text, Name: name, Server: "10.96.0.10:53"}
		return &url.Error{Op: "Get", URL: "https://" + name, Err: &net.OpError{Op: "dial", Net: "tcp", Err: dns}}
	}
	first := rootCause(lookup("api", "read udp 192.0.2.1:40001->10.96.0.10:53: i/o timeout"))
	again := rootCause(lookup("api", "read udp 192.0.2.1:40002->10.96.0.10:53: i/o timeout"))
	if again != first {
		t.Errorf("%q and %q differ", first, again)
	}
	other := rootCause(lookup("api2", "read udp 192.0.2.1:40001->10.96.0.10:53: i/o timeout"))
	if other == first {
		t.Errorf("the error for another name is the same, %q", other)
	}
}
