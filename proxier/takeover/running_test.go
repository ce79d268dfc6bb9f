package takeover

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestRunning(t *testing.T) {
	serve := func(mode, metrics string) string {
		mux := http.NewServeMux()
		mux.HandleFunc("/proxyMode", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, mode) })
		mux.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, metrics) })
		server := httptest.NewServer(mux)
		t.Cleanup(server.Close)
		return strings.TrimPrefix(server.URL, "http://")
	}
	silent := httptest.NewServer(http.NotFoundHandler())
	defer silent.Close()
	for _, test := range []struct{ addr, want string }{
		{serve("ipvs", "# HELP x\nkubeproxy_sync_proxy_rules_last_timestamp_seconds 1\n"), "ipvs"},
		{serve("nftables", "kubeproxy_sync_total 1\n"), "nftables"},
		{serve("nftables", "# HELP nftproxy_x\nnftproxy_transactions_total 1\n"), ""},
		{serve("hello", ""), ""},
		{strings.TrimPrefix(silent.URL, "http://"), ""},
		{"127.0.0.1:1", ""},
	} {
		got, err := Running(t.Context(), test.addr)
		if err != nil || got != test.want {
			t.Errorf("%s: got %q, %v, want %q", test.addr, got, err, test.want)
		}
	}
}
