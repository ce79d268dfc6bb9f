package takeover

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"syscall"
	"time"
)

// askTimeout bounds one question to the metrics address of this node.
const askTimeout = 2 * time.Second

// mostMetrics is how much is read of a page, in bytes.
const mostMetrics = 8 << 20

// Running returns the mode of the kube-proxy that serves its metrics at an address of
// this node, host:port; "" if none does. nftproxy serves the same pages at the same
// address, and is known by the names of its metrics.
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
		return "", nil // somebody else's
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

// get returns a page; one that is not there is empty.
func get(ctx context.Context, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", url, err)
	}
	// Through no proxy: it is this node that is asked. One connection, and none left.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return nil, err // names the URL
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, nil
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, mostMetrics))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", url, err)
	}
	return body, nil
}
