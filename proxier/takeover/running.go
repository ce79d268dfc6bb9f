package takeover

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"syscall"
	"time"
)

// defaultMetricsAddr is where kube-proxy serves its metrics by default.
const defaultMetricsAddr = "127.0.0.1:10249"

// MetricsAddr returns where a kube-proxy with the configured metricsBindAddress serves its metrics.
func MetricsAddr(configured string) string { return cmp.Or(configured, defaultMetricsAddr) }

// askTimeout bounds the requests to the metrics address.
const askTimeout = 2 * time.Second

// maxPage is how many bytes of a page are read.
const maxPage = 8 << 20

// Running returns the mode of the kube-proxy that serves its metrics at an address of this node, host:port,
// or "" if none does. nftproxy serves the same pages at the same address, and has other metrics.
func Running(ctx context.Context, addr string) (mode string, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	body, err := get(ctx, "http://"+addr+"/proxyMode")
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "", nil
	case err != nil:
		return "", err
	}
	switch mode = string(bytes.TrimSpace(body)); mode {
	case "iptables", "ipvs", "nftables":
	default:
		return "", nil // another program
	}
	metrics, err := get(ctx, "http://"+addr+"/metrics")
	if err != nil {
		return "", err
	}
	if bytes.Contains(metrics, []byte("\nnftproxy_")) {
		return "", nil
	}
	return mode, nil
}

// get returns a page, or nothing if the server does not have it.
func get(ctx context.Context, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", url, err)
	}
	// The address is this node's, so no HTTP proxy is used. The connection is closed after the request.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return nil, err // names the URL
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, nil
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxPage))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", url, err)
	}
	return body, nil
}
