//go:build e2e

package e2e

import (
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// TestAPIServer runs nftproxy while the API server cannot be reached, is stopped, and goes back in time.
func TestAPIServer(t *testing.T) {
	// client-go pings silent connections after 30 s, and waits for 15 s. This is shorter, to save time.
	t.Setenv("HTTP2_READ_IDLE_TIMEOUT_SECONDS", "3")
	t.Setenv("HTTP2_PING_TIMEOUT_SECONDS", "1")
	m := &monitor{cluster: newCluster(t)}
	t.Run("packets vanish", func(sub *testing.T) { losesPackets(t, sub, m) })
	t.Run("process is stopped", func(t *testing.T) { stopsAPIServer(t, m) })
	t.Run("etcd is restored", func(t *testing.T) { restoresEtcd(t, m) })
}

// losesPackets starts nftproxy, which runs until the end of the whole test, while packets to the API server
// are lost.
func losesPackets(all, t *testing.T, m *monitor) {
	config, err := clientcmd.BuildConfigFromFlags("", m.plane.AdminKubeconfig)
	must(t, err)
	address, err := url.Parse(config.Host)
	must(t, err)
	m.nft(t, "table inet lost { chain lost { type filter hook input priority -300; tcp dport "+
		address.Port()+" drop; }; }")
	m.proxy = m.startProxy(all)
	const vanished = `: i/o timeout; not heard for 10s`
	const missing = `start: no services, no endpointslices received`
	m.logs(t, vanished)
	m.logs(t, missing)
	m.problem(t, true, "the API server cannot be read")
	m.problem(t, true, "Nothing is programmed yet")
	time.Sleep(12 * time.Second) // another attempt
	log, err := os.ReadFile(m.proxy.log)
	must(t, err)
	for _, text := range []string{vanished, missing} {
		if n := strings.Count(string(log), text); n != 1 {
			t.Errorf("%q is in the log %d times:\n%s", text, n, log)
		}
	}
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, "list") && strings.Contains(line, "err=") && line[0] != 'E' {
			t.Errorf("not logged as an error: %s", line)
		}
	}
	m.nft(t, "delete table inet lost")
	m.logs(t, "the API server answers again after")
	m.logs(t, "services, endpointslices received after")
	m.problem(t, false, "API server")
	m.problem(t, false, "Nothing is programmed yet")
	servesPorts(t, m.cluster)
}

const lastHeard = "nftproxy_api_server_last_heard_timestamp_seconds"

// stopsAPIServer stops the process of the API server: the kernel still accepts connections for it.
func stopsAPIServer(t *testing.T, m *monitor) {
	spec := corev1.ServiceSpec{Ports: []corev1.ServicePort{tcp("", 80, 8080)}}
	svc := m.service(t, newService("hang", spec), "pod-a")
	to := target("tcp", svc.Spec.ClusterIP, 80)
	m.check(t, lab.Row{From: "pod-b", To: to, By: []string{"pod-a"}})
	expr, first := alertExpr(t, "NftproxyAPIServerSilent"), m.scrape(t)
	for _, resource := range []string{"services", "endpointslices", "nodes", "servicecidrs"} {
		if n := len(first.pick(t, lastHeard+`{resource="`+resource+`"}`)); n != 1 {
			t.Errorf("%d series for %s", n, resource)
		}
	}
	if silent(t, expr, first, time.Now()) {
		t.Error("the alert fires while the API server answers")
	}
	stopped := time.Now()
	must(t, unix.Kill(m.plane.APIServer.PID(), unix.SIGSTOP))
	defer func() { _ = unix.Kill(m.plane.APIServer.PID(), unix.SIGCONT) }()
	m.logs(t, "http2: client connection lost; not heard for")
	t.Logf("logged %v after the API server was stopped", time.Since(stopped).Round(time.Second))
	m.problem(t, true, "the API server cannot be read")
	m.logs(t, "TLS handshake timeout; not heard for")
	if last := m.scrape(t); !silent(t, expr, last, stopped.Add(310*time.Second)) {
		t.Error("the alert does not fire")
	}
	must(t, unix.Kill(m.plane.APIServer.PID(), unix.SIGCONT))
	m.increases(t, func() { m.setEndpoints(t, "hang", endpoints("pod-c")) },
		lastHeard+`{resource="services"}`, lastHeard+`{resource="endpointslices"}`)
	m.problem(t, false, "API server")
	m.check(t, lab.Row{From: "pod-b", To: to, By: []string{"pod-c"}})
}

var silence = regexp.MustCompile(`^time\(\) - min by \(instance\) \((\w+)\) > (\d+)$`)

// silent evaluates an expression that compares the age of the oldest of some timestamps with a limit.
func silent(t *testing.T, expr string, p page, now time.Time) bool {
	t.Helper()
	parts := silence.FindStringSubmatch(expr)
	if parts == nil {
		t.Fatalf("the expression is not an age with a limit: %s", expr)
	}
	limit, err := strconv.ParseFloat(parts[2], 64)
	must(t, err)
	oldest := float64(now.Unix())
	for _, s := range p.pick(t, parts[1]) {
		oldest = min(oldest, s.value)
	}
	return float64(now.Unix())-oldest > limit
}

// restoresEtcd restores etcd from an older copy. nftproxy is stopped meanwhile, so that none of its requests
// fails: the next watch resumes at once, at a version that the API server does not have.
func restoresEtcd(t *testing.T, m *monitor) {
	spec := corev1.ServiceSpec{Ports: []corev1.ServicePort{tcp("", 80, 8080)}}
	to := func(name string) lab.Target {
		svc, err := m.client.CoreV1().Services("default").Get(t.Context(), name, metav1.GetOptions{})
		must(t, err)
		return target("tcp", svc.Spec.ClusterIP, 80)
	}
	for _, name := range []string{"kept", "deleted"} {
		m.service(t, newService(name, spec), "pod-a")
		m.check(t, lab.Row{From: "pod-b", To: to(name), By: []string{"pod-a"}})
	}
	kept, deleted := to("kept"), to("deleted")
	must(t, m.plane.Etcd.Stop())
	must(t, m.plane.SaveData())
	must(t, m.lab.Node().Do(func() error { return m.plane.Etcd.Start(t.Context()) }))
	m.service(t, newService("younger", spec), "pod-a")
	younger := to("younger")
	m.setEndpoints(t, "kept", endpoints("pod-c"))
	must(t, m.client.CoreV1().Services("default").Delete(t.Context(), "deleted", metav1.DeleteOptions{}))
	for i := range 100 { // so that the restored API server does not reach the version by itself
		m.setEndpoints(t, "younger", endpoints([]string{"pod-a", "pod-b"}[:1+i%2]...))
	}
	m.check(t, lab.Row{From: "pod-b", To: kept, By: []string{"pod-c"}})
	m.check(t, lab.Row{From: "pod-b", To: younger, By: []string{"pod-a", "pod-b"}})
	m.check(t, lab.Row{From: "pod-b", To: deleted, Dropped: true})

	must(t, m.proxy.cmd.Process.Signal(unix.SIGSTOP))
	must(t, m.plane.APIServer.Stop())
	must(t, m.plane.Etcd.Stop())
	must(t, m.plane.RestoreData())
	must(t, m.lab.Node().Do(func() error { return m.plane.Etcd.Start(t.Context()) }))
	must(t, m.lab.Node().Do(func() error { return m.plane.APIServer.Start(t.Context()) }))
	must(t, m.proxy.cmd.Process.Signal(unix.SIGCONT))
	began := time.Now()
	m.check(t, lab.Row{From: "pod-b", To: kept, By: []string{"pod-a"}})
	m.check(t, lab.Row{From: "pod-b", To: deleted, By: []string{"pod-a"}})
	m.check(t, lab.Row{From: "pod-b", To: younger, Dropped: true})
	t.Logf("as restored after %v", time.Since(began).Round(100*time.Millisecond))
	m.logs(t, "as after etcd was restored from a snapshot")
}
