package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// metricsAddr is the address of the metrics and profiles of a proxy, in the namespace of its node.
const metricsAddr = "127.0.0.1:10249"

// firstSync returns the duration of the first sync in milliseconds: from the output of the floor, and from
// the metric of a proxy with the total of its full syncs for IPv4, of which a start needs one or more.
func (n *node) firstSync() (float64, bool) {
	if n.who.name == floorName {
		text, _ := os.ReadFile(n.proxy.log)
		lines := strings.Fields(string(text))
		took, err := strconv.ParseFloat(lines[len(lines)-1], 64)
		return took, err == nil
	}
	values, err := n.scrape()
	seconds, ok := values[`kubeproxy_sync_full_proxy_rules_duration_seconds_sum{ip_family="IPv4"}`]
	return seconds * 1000, ok && err == nil
}

// heap is the total of all allocations of a process, including freed ones.
type heap struct{ objects, bytes float64 }

func (h heap) minus(before heap) heap {
	return heap{h.objects - before.objects, h.bytes - before.bytes}
}
func (h heap) over(count int) heap { return heap{h.objects / float64(count), h.bytes / float64(count)} }

// allocations returns the allocations of the proxy, if it has a metric for them. The first of two scrapes
// pays for the allocations that only the first scrape needs.
func (n *node) allocations() (heap, bool) {
	if n.who.name == floorName {
		return heap{}, false
	}
	read := func() (heap, bool) {
		values, err := n.scrape()
		objects, ok := values["go_memstats_mallocs_total"]
		return heap{objects, values["go_memstats_alloc_bytes_total"]}, ok && err == nil
	}
	_, first := read()
	h, ok := read()
	return h, first && ok
}

// scrape returns the metrics of the proxy by name and labels.
func (n *node) scrape() (map[string]float64, error) {
	var text string
	err := n.lab.Node().Do(func() (err error) {
		text, err = get(metricsAddr, "/metrics")
		return err
	})
	values := map[string]float64{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			values[name] = v
		}
	}
	return values, err
}

// get returns the response to a GET. Unlike net/http, it connects on the calling thread, which is in the
// namespace of the server.
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
