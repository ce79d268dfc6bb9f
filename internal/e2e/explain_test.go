//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"os/exec"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/explain"
	"github.com/nftproxy/nftproxy/proxier/probe"
	"github.com/nftproxy/nftproxy/proxier/trace"
)

// explains asks the running nftproxy with its own command about a Service that works, about the same one
// without endpoints, and about one that is headless.
func explains(t *testing.T, c *cluster) {
	svc := c.service(t, newService("explained", corev1.ServiceSpec{
		Ports: []corev1.ServicePort{tcp("http", 80, 8080)}}), "pod-a", "pod-c")
	to := target("tcp", svc.Spec.ClusterIP, 80)
	c.check(t, lab.Row{From: "pod-b", To: to, By: []string{"pod-a", "pod-c"}})
	report, code := c.explain(t, "default/explained:http", "--from=10.244.1.12")
	if code != 0 || report.Verdict != "endpoint" || len(report.Endpoints) != 2 || report.Source != "kept" {
		t.Errorf("exit code %d, %+v", code, report)
	}
	report, code = c.explain(t, "default/explained:http", "--probe", "--live=5s")
	if p := report.Probe; code != 0 || p == nil || p.Result != probe.Connected || len(report.Endpoints) != 2 ||
		report.Live == nil || len(report.Live.Packets) == 0 || report.Live.Packets[0].Fate != trace.Left {
		t.Errorf("exit code %d, probe %+v, live %+v", code, p, report.Live)
	}
	c.setEndpoints(t, "explained", endpoints())
	c.check(t, lab.Row{From: "pod-b", To: to, Refused: true})
	if report, code := c.explain(t, to.Addr.String(), "--from=node"); code != 1 || report.Verdict != "refused" {
		t.Errorf("without endpoints: exit code %d, %+v", code, report)
	}
	services := c.client.CoreV1().Services("default")
	must(t, services.Delete(t.Context(), "explained", metav1.DeleteOptions{}))
	headless := newService("headless", corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone,
		Ports: []corev1.ServicePort{tcp("http", 80, 8080)}})
	_, err := services.Create(t.Context(), headless, metav1.CreateOptions{})
	must(t, err)
	if report, code := c.explain(t, "default/headless"); code != 3 || report.Verdict != "untouched" {
		t.Errorf("headless: exit code %d, %+v", code, report)
	}
	must(t, services.Delete(t.Context(), "headless", metav1.DeleteOptions{}))
}

// explain runs nftproxy explain on the node.
func (c *cluster) explain(t *testing.T, args ...string) (report explain.Report, code int) {
	t.Helper()
	must(t, c.lab.Node().Do(func() error {
		out, err := exec.Command(binary(), append([]string{"explain", "-o=json"}, args...)...).Output()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			code, err = exit.ExitCode(), nil
		}
		if err != nil {
			return err
		}
		return json.Unmarshal(out, &report)
	}))
	return report, code
}
