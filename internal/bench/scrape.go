package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// metricsAddr is where proxies serve metrics and profiles, in the namespace of their node.
const metricsAddr = "127.0.0.1:10249"

// firstSync returns how long, in milliseconds, the proxy says that its full syncs for IPv4 have taken so far: right
// after a start that is one, or as many as it took.
func (n *node) firstSync() (float64, bool) {
	var text string
	err := n.lab.Node().Do(func() (err error) {
		text, err = get(metricsAddr, "/metrics")
		return err
	})
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == `kubeproxy_sync_full_proxy_rules_duration_seconds_sum{ip_family="IPv4"}` {
			seconds, err := strconv.ParseFloat(value, 64)
			return seconds * 1000, err == nil
		}
	}
	return 0, false
}

// get answers a GET on the calling thread, which is in the namespace of the server; net/http would not be.
func get(addr, path string) (string, error) {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.0\r\nHost: %s\r\n\r\n", path, addr); err != nil {
		return "", err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text := &strings.Builder{}
	_, err = bufio.NewReader(answer.Body).WriteTo(text)
	return text.String(), err
}
