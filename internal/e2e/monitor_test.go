//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// monitor is a cluster in which a test reads the metrics of nftproxy as Prometheus does.
type monitor struct {
	*cluster
	proxy *proxy
}

// newMonitor starts nftproxy with a pause between syncs, in which changes have to wait, and with tables that
// other processes can edit. It returns after the first sync.
func newMonitor(t *testing.T) *monitor {
	t.Helper()
	m := &monitor{newCluster(t), &proxy{log: filepath.Join(t.TempDir(), "nftproxy.log")}}
	log, err := os.Create(m.proxy.log)
	must(t, err)
	defer log.Close()
	must(t, m.lab.Node().Do(func() error {
		m.proxy.cmd = exec.Command(binary(), "--kubeconfig="+filepath.Join(kubeProxyDir, "kubeconfig.conf"),
			"--hostname-override="+lab.NodeName, "--cluster-cidr=10.244.0.0/16,fd00:10:244::/56",
			"--own-tables=false", "--iptables-min-sync-period=500ms")
		m.proxy.cmd.Stdout, m.proxy.cmd.Stderr = log, log
		return m.proxy.cmd.Start()
	}))
	t.Cleanup(func() { _ = m.proxy.cmd.Process.Kill() })
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if status, _, _ := m.get(t, "http://127.0.0.1:10256/healthz"); status == 200 {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("/healthz answers %d after 30 s", status)
		}
	}
	// The API server creates default/kubernetes.
	m.becomes(t, map[string]float64{"nftproxy_services": 1})
	return m
}

// web creates a Service for HTTP.
func (m *monitor) web(t *testing.T, name string, spec corev1.ServiceSpec, pods ...string) {
	t.Helper()
	spec.Ports = []corev1.ServicePort{tcp("", 80, 8080)}
	m.service(t, newService(name, spec), pods...)
}

// scrape reads the page.
func (m *monitor) scrape(t *testing.T) page {
	t.Helper()
	status, _, body := m.get(t, "http://127.0.0.1:10249/metrics")
	if status != 200 {
		t.Fatalf("/metrics: status %d: %s", status, body)
	}
	return parsePage(t, body)
}

// until scrapes until nothing is missing from the page, which it returns.
func (m *monitor) until(t *testing.T, missing func(page) []string) page {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		p := m.scrape(t)
		lacks := missing(p)
		if len(lacks) == 0 {
			return p
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(m.proxy.log)
			t.Fatalf("after 15 s: %s\n%s", strings.Join(lacks, "\n"), log)
		}
	}
}

// increases makes something happen and waits until the sum of each selector is greater than before.
func (m *monitor) increases(t *testing.T, do func(), selectors ...string) page {
	t.Helper()
	before := m.scrape(t)
	do()
	return m.until(t, func(p page) []string { return p.notAbove(t, before, selectors...) })
}

// becomes waits until there are series for each selector, with this sum.
func (m *monitor) becomes(t *testing.T, want map[string]float64) {
	t.Helper()
	m.until(t, func(p page) []string {
		var lacks []string
		for s, value := range want {
			if n := len(p.pick(t, s)); n == 0 || p.sum(t, s) != value {
				lacks = append(lacks,
					fmt.Sprintf("%s: %d series with the sum %v, want %v", s, n, p.sum(t, s), value))
			}
		}
		return lacks
	})
}

// nft runs a script of nft on the node.
func (m *monitor) nft(t *testing.T, script string) {
	t.Helper()
	_, err := m.lab.Node().Nft(script)
	must(t, err)
}

// logs waits until nftproxy has logged the text.
func (m *monitor) logs(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		log, err := os.ReadFile(m.proxy.log)
		must(t, err)
		if bytes.Contains(log, []byte(text)) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("nftproxy has not logged %q after a minute:\n%s", text, log)
		}
	}
}
