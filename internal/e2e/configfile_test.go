//go:build e2e

package e2e

import (
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// keepsConfig makes the configuration file unusable, by an invalid value and by a kubeconfig that does not
// exist: nftproxy sends an Event about the Node each time and keeps working. Then it puts the file back, with
// another comment.
func keepsConfig(t *testing.T, c *cluster) {
	good, err := os.ReadFile(c.config)
	must(t, err)
	spec := corev1.ServiceSpec{Ports: []corev1.ServicePort{tcp("", 80, 8080)}}
	svc := c.service(t, newService("configured", spec), "pod-a")
	for change, want := range map[string]string{
		"mode: nonsense #":                     "mode",
		"kubeconfig: /does/not/exist/config #": "/does/not/exist/config",
	} {
		field, _, _ := strings.Cut(change, " ")
		must(t, replaceFile(c.config, strings.Replace(string(good), field, change, 1)))
		c.awaitEvent(t, "ConfigInvalid", want)
		c.awaitMetric(t, "nftproxy_config_invalid 1")
		for _, pod := range []string{"pod-b", "pod-a"} {
			c.setEndpoints(t, "configured", endpoints(pod))
			c.check(t, lab.Row{From: "pod-b", To: target("tcp", svc.Spec.ClusterIP, 80), By: []string{pod}})
		}
		must(t, replaceFile(c.config, "# corrected\n"+string(good)))
		c.awaitMetric(t, "nftproxy_config_invalid 0")
	}
}

// awaitEvent waits for an Event about the Node.
func (c *cluster) awaitEvent(t *testing.T, reason, note string) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		list, err := c.client.EventsV1().Events("default").List(t.Context(), metav1.ListOptions{})
		must(t, err)
		for _, e := range list.Items {
			if e.Reason == reason && e.Regarding.Kind == "Node" && e.Regarding.Name == lab.NodeName &&
				strings.Contains(e.Note, note) {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("no Event %s with %q about the Node among %d", reason, note, len(list.Items))
		}
	}
}

// awaitMetric waits for a line of the /metrics page.
func (c *cluster) awaitMetric(t *testing.T, line string) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		_, _, body := c.get(t, "http://127.0.0.1:10249/metrics")
		if strings.Contains(body, "\n"+line+"\n") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the page has no line %q after 15 s", line)
		}
	}
}

// restartsForConfig changes the configuration: nftproxy exits with code 0.
func restartsForConfig(t *testing.T, c *cluster, p *proxy) {
	data, err := os.ReadFile(c.config)
	must(t, err)
	changed := strings.Replace(string(data), "enableProfiling: false", "enableProfiling: true", 1)
	must(t, replaceFile(c.config, changed))
	done := make(chan error, 1)
	go func() { done <- p.cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("nftproxy ended with %v, want exit code 0", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("nftproxy still runs 30 s after its configuration file changed")
	}
}
