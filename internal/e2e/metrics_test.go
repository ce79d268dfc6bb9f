//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/nftables"
)

// Series that more than one step looks at.
const (
	committed = `nftproxy_transactions_total{result="success"}`
	refused   = `nftproxy_transactions_total{result="error"}`

	lastSync4 = `kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv4"}`
	lastSync6 = `kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv6"}`

	syncFailures4    = `kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family="IPv4"}`
	syncFailures6    = `kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family="IPv6"}`
	cleanupFailures4 = `kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total{ip_family="IPv4"}`
	cleanupFailures6 = `kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total{ip_family="IPv6"}`
	deletedFlows4    = `kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family="IPv4"}`
	deletedFlows6    = `kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family="IPv6"}`
)

// TestMetrics makes happen what the metrics of nftproxy count, and reads them from its /metrics page. In the
// end the page has exactly the metrics of the lists in proxier/metrics/testdata.
func TestMetrics(t *testing.T) {
	m := newMonitor(t)
	first := m.scrape(t)
	t.Run("counters are 0 before the first failure", func(t *testing.T) { startsAtZero(t, first) })
	t.Run("health checks", func(t *testing.T) { countsHealthChecks(t, m) })
	t.Run("changes", func(t *testing.T) { countsChanges(t, m) })
	t.Run("pending changes", func(t *testing.T) { countsPending(t, m) })
	t.Run("traffic policy Local", func(t *testing.T) { countsNoLocalEndpoints(t, m) })
	t.Run("conflicts", func(t *testing.T) { countsConflicts(t, m) })
	t.Run("refused frontends", func(t *testing.T) { countsRefused(t, m) })
	t.Run("stale flows", func(t *testing.T) { countsStaleFlows(t, m) })
	t.Run("repairs and failed cleanups", func(t *testing.T) { countsFailedCleanup(t, m) })
	t.Run("errors outside of transactions", func(t *testing.T) { countsNetlinkErrors(t, m) })
	t.Run("refused transactions", func(t *testing.T) { countsRefusedTransaction(t, m) })
	t.Run("connections", func(t *testing.T) { countsConnections(t, m) })
	t.Run("names, types, labels and buckets", func(t *testing.T) { comparesLists(t, m) })
	t.Run("API server", func(t *testing.T) { countsFailedRequests(t, m, first) })
}

// startsAtZero checks counters that must be on the page with the value 0: the functions rate and increase of
// Prometheus do not see the step to the first value of a series.
func startsAtZero(t *testing.T, p page) {
	for _, s := range []string{
		syncFailures4, syncFailures6, cleanupFailures4, cleanupFailures6, deletedFlows4, deletedFlows6,
		refused, `nftproxy_elements_total{operation="delete"}`, "nftproxy_drift_repaired_total",
	} {
		if n := len(p.pick(t, s)); n != 1 || p.sum(t, s) != 0 {
			t.Errorf("%s: %d series with the sum %v, want one with 0", s, n, p.sum(t, s))
		}
	}
}

// countsHealthChecks asks for the health of a node that load balancers may use, and of one that they may not
// use.
func countsHealthChecks(t *testing.T, m *monitor) {
	ask := func() {
		m.get(t, "http://127.0.0.1:10256/healthz")
		m.get(t, "http://127.0.0.1:10256/livez")
	}
	m.increases(t, ask,
		`kubeproxy_proxy_healthz_total{code="200"}`, `kubeproxy_proxy_livez_total{code="200"}`)
	node, err := m.client.CoreV1().Nodes().Get(t.Context(), lab.NodeName, metav1.GetOptions{})
	must(t, err)
	node.Spec.Taints = []corev1.Taint{
		{Key: "ToBeDeletedByClusterAutoscaler", Effect: corev1.TaintEffectNoSchedule}}
	_, err = m.client.CoreV1().Nodes().Update(t.Context(), node, metav1.UpdateOptions{})
	must(t, err)
	before := m.scrape(t)
	m.until(t, func(p page) []string {
		ask()
		return p.notAbove(t, before, `kubeproxy_proxy_healthz_total{code="503"}`)
	})
}

// countsChanges creates a Service and gives it four endpoints. No other Service has that many endpoints, or
// session affinity.
func countsChanges(t *testing.T, m *monitor) {
	after := m.increases(t, func() {
		m.web(t, "four", corev1.ServiceSpec{SessionAffinity: corev1.ServiceAffinityClientIP}, "pod-a")
		m.setEndpoints(t, "four", endpoints("pod-a", "pod-b", "pod-c", "pod-d"))
	},
		"kubeproxy_sync_proxy_rules_service_changes_total",
		"kubeproxy_sync_proxy_rules_endpoint_changes_total",
		`kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family="IPv4"}`,
		`kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family="IPv6"}`,
		lastSync4, lastSync6,
		`kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family="IPv6"}`,
		`kubeproxy_sync_partial_proxy_rules_duration_seconds_count{ip_family="IPv6"}`,
		`kubeproxy_network_programming_duration_seconds_count{ip_family="IPv4"}`,
		committed, `nftproxy_elements_total{operation="add"}`,
	)
	m.becomes(t, map[string]float64{
		"nftproxy_services": 2,
		`nftproxy_frontends{ip_family="IPv4",shape="sticky-cluster-4-10800"}`: 1,
	})
	for _, family := range []string{"IPv4", "IPv6"} {
		label := `_proxy_rules_duration_seconds_count{ip_family="` + family + `"}`
		all, full := after.sum(t, "kubeproxy_sync"+label), after.sum(t, "kubeproxy_sync_full"+label)
		partial := after.sum(t, "kubeproxy_sync_partial"+label)
		if full < 1 || partial < 1 || all != full+partial {
			t.Errorf("%s: %v syncs, %v of them full and %v partial", family, all, full, partial)
		}
	}
}

// countsPending creates Services until some of them arrive in the pause between two syncs.
func countsPending(t *testing.T, m *monitor) {
	seen := map[string]bool{
		"kubeproxy_sync_proxy_rules_service_changes_pending":  false,
		"kubeproxy_sync_proxy_rules_endpoint_changes_pending": false,
	}
	created := 0
	m.until(t, func(p page) []string {
		var unseen []string
		for s := range seen {
			if seen[s] = seen[s] || p.sum(t, s) > 0; !seen[s] {
				unseen = append(unseen, s+" is always 0")
			}
		}
		if len(unseen) > 0 {
			m.web(t, "pending-"+strconv.Itoa(created), corev1.ServiceSpec{}, "pod-a")
			created++
		}
		return unseen
	})
	for s := range seen {
		m.becomes(t, map[string]float64{s: 0})
	}
}

func countsNoLocalEndpoints(t *testing.T, m *monitor) {
	internal := corev1.ServiceInternalTrafficPolicyLocal
	m.web(t, "local", corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, InternalTrafficPolicy: &internal,
		ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal}, "pod-c")
	const name = "kubeproxy_sync_proxy_rules_no_local_endpoints_total"
	m.becomes(t, map[string]float64{
		name + `{ip_family="IPv4",traffic_policy="internal"}`: 1,
		name + `{ip_family="IPv4",traffic_policy="external"}`: 1,
		name + `{ip_family="IPv6"}`:                           0,
	})
	m.setEndpoints(t, "local", endpoints("pod-a", "pod-c"))
	m.becomes(t, map[string]float64{name: 0})
}

func countsConflicts(t *testing.T, m *monitor) {
	for _, name := range []string{"one", "other"} {
		m.web(t, name, corev1.ServiceSpec{ExternalIPs: []string{"198.51.100.7"}}, "pod-a")
	}
	m.becomes(t, map[string]float64{"nftproxy_frontend_conflicts": 1})
	must(t, m.client.CoreV1().Services("default").Delete(t.Context(), "other", metav1.DeleteOptions{}))
	m.becomes(t, map[string]float64{"nftproxy_frontend_conflicts": 0})
}

// countsRefused claims the port of the kubelet on the node, and then wants a product of ports and addresses.
func countsRefused(t *testing.T, m *monitor) {
	m.service(t, newService("kubelet", corev1.ServiceSpec{ExternalIPs: []string{"192.0.2.1"},
		Ports: []corev1.ServicePort{tcp("", 10250, 8080)}}), "pod-a")
	m.becomes(t, map[string]float64{`nftproxy_frontends_refused{reason="reserved"}`: 1})
	must(t, m.client.CoreV1().Services("default").Delete(t.Context(), "kubelet", metav1.DeleteOptions{}))
	var product corev1.ServiceSpec
	for i := range 300 {
		product.ExternalIPs = append(product.ExternalIPs, fmt.Sprintf("198.18.%d.%d", i/250, i%250+1))
		product.Ports = append(product.Ports, tcp(fmt.Sprintf("p%d", i), int32(i+1), 8080))
	}
	m.service(t, newService("product", product), "pod-a")
	// 256 elements for each of 300 ports, 300 external IPs, a ClusterIP and an endpoint; a frontend has two.
	m.becomes(t, map[string]float64{`nftproxy_frontends_refused{reason="reserved"}`: 0,
		`nftproxy_frontends_refused{reason="limit"}`: 300*301 - 602*256/2})
	must(t, m.client.CoreV1().Services("default").Delete(t.Context(), "product", metav1.DeleteOptions{}))
	m.becomes(t, map[string]float64{`nftproxy_frontends_refused{reason="limit"}`: 0})
}

// countsStaleFlows takes away the endpoint of a UDP flow.
func countsStaleFlows(t *testing.T, m *monitor) {
	var svc *corev1.Service
	m.increases(t, func() {
		spec := corev1.ServiceSpec{Ports: []corev1.ServicePort{udp("", 53, 5353)}}
		svc = m.service(t, newService("udp", spec), "pod-a")
	}, committed)
	m.check(t, lab.Row{From: "pod-b", To: target("udp", svc.Spec.ClusterIP, 53), By: []string{"pod-a"}})
	const durations = "kubeproxy_conntrack_reconciler_sync_duration_seconds_count"
	m.increases(t, func() { m.setEndpoints(t, "udp", endpoints("pod-b")) },
		deletedFlows4, durations+`{ip_family="IPv4"}`, durations+`{ip_family="IPv6"}`)
}

// countsFailedCleanup damages a chain: a repair is counted. Then it makes chains that the next full sync
// fails to delete: the kernel refuses to delete an anonymous chain, that of a rule of another program, by
// itself.
func countsFailedCleanup(t *testing.T, m *monitor) {
	before := m.increases(t, func() { m.nft(t, "flush chain ip nftproxy services") },
		"nftproxy_drift_repaired_total", `kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family="IPv4"}`)
	after := m.increases(t, func() {
		m.nft(t, "table ip nftproxy { chain foreign { jump { counter; }; }; }")
		must(t, m.client.CoreV1().Services("default").Delete(t.Context(), "four", metav1.DeleteOptions{}))
	}, cleanupFailures4, cleanupFailures6, `nftproxy_netlink_errors_total{errno="ENOTSUP"}`,
		`nftproxy_elements_total{operation="delete"}`)
	if n := after.sum(t, refused) - before.sum(t, refused); n != 0 {
		t.Errorf("the failed cleanup counts as %v refused transactions", n)
	}
	if left := after.pick(t, `nftproxy_frontends{shape="sticky-cluster-4-10800"}`); len(left) > 0 {
		t.Errorf("a shape that no frontend has is still on the page: %v", left)
	}
}

// countsNetlinkErrors keeps nftproxy from opening the sockets with which it searches for stale flows.
func countsNetlinkErrors(t *testing.T, m *monitor) {
	before, process := m.scrape(t), m.proxy.cmd.Process.Pid
	after := m.increases(t, func() {
		var limit unix.Rlimit
		must(t, unix.Prlimit(process, unix.RLIMIT_NOFILE, nil, &limit))
		must(t, unix.Prlimit(process, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1, Max: limit.Max}, nil))
		m.setEndpoints(t, "udp", endpoints("pod-a"))
		m.logs(t, "Failed to delete stale flows, will retry")
		must(t, unix.Prlimit(process, unix.RLIMIT_NOFILE, &limit, nil))
	}, `nftproxy_netlink_errors_total{errno="EMFILE"}`)
	if n := after.sum(t, refused) - before.sum(t, refused); n != 0 {
		t.Errorf("the failed search counts as %v refused transactions", n)
	}
}

// countsRefusedTransaction replaces a table by one that another process owns, so that the kernel refuses to
// repair it. When its owner ends, that table is gone.
func countsRefusedTransaction(t *testing.T, m *monitor) {
	var owner *netlink.Conn
	must(t, m.lab.Node().Do(func() (err error) {
		owner, err = netlink.Dial()
		return err
	}))
	defer owner.Close()
	const tableOwned = 2 // NFT_TABLE_F_OWNER
	var b netlink.Batch
	b.Message(unix.NFT_MSG_DELTABLE, 0, unix.NFPROTO_IPV4)
	b.String(unix.NFTA_TABLE_NAME, nftables.TableName)
	b.Message(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, unix.NFPROTO_IPV4)
	b.String(unix.NFTA_TABLE_NAME, nftables.TableName)
	b.U32(unix.NFTA_TABLE_FLAGS, tableOwned)
	if err := owner.Check(&b); errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		t.Logf("cannot show a refused transaction: tables have owners since Linux 5.12: %v", err)
		return
	}
	m.increases(t, func() { must(t, owner.Commit(&b)) },
		refused, `nftproxy_netlink_errors_total{errno="EPERM"}`, syncFailures4, syncFailures6)
	m.increases(t, func() { must(t, owner.Close()) }, committed, lastSync4, lastSync6)
}

// countsConnections connects to a port of a Service. A port without connections has no series.
func countsConnections(t *testing.T, m *monitor) {
	svc := m.service(t, newService("counted", corev1.ServiceSpec{
		Ports: []corev1.ServicePort{tcp("http", 80, 8080), tcp("idle", 81, 8080)}}), "pod-a")
	const name = "nftproxy_service_connections_total"
	m.increases(t, func() {
		m.check(t, lab.Row{From: "pod-b", To: target("tcp", svc.Spec.ClusterIP, 80), By: []string{"pod-a"}})
	}, name+`{namespace="default",port="http",service="counted"}`)
	if idle := m.scrape(t).pick(t, name+`{port="idle"}`); len(idle) > 0 {
		t.Errorf("a port without connections has series: %v", idle)
	}
}

// comparesLists compares the page with the lists of metrics.
func comparesLists(t *testing.T, m *monitor) {
	var want []string
	for _, name := range []string{"kube-proxy.txt", "nftproxy.txt"} {
		text, err := os.ReadFile(filepath.Join(root, "proxier", "metrics", "testdata", name))
		must(t, err)
		want = append(want, strings.Split(strings.TrimSpace(string(text)), "\n")...)
	}
	slices.Sort(want)
	p := m.scrape(t)
	if diff := cmp.Diff(want, p.metrics()); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
	for _, name := range []string{
		"go_goroutines", "process_resident_memory_bytes", "process_cpu_seconds_total"} {
		if len(p.pick(t, name)) != 1 {
			t.Errorf("the page has no %s", name)
		}
	}
}
