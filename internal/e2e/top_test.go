//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/status"
)

// tops looks at the running nftproxy with its own command: as JSON and as text through a pipe, and in a
// terminal whose kind nobody says, as over kubectl exec.
func tops(t *testing.T, c *cluster) {
	svc := c.service(t, newService("topped", corev1.ServiceSpec{
		Ports: []corev1.ServicePort{tcp("http", 80, 8080)}}), "pod-a", "pod-c")
	c.check(t, lab.Row{From: "pod-b", To: target("tcp", svc.Spec.ClusterIP, 80), By: []string{"pod-a", "pod-c"}})
	var report status.Report
	must(t, json.Unmarshal(c.top(t, "--once", "-o=json", "--filter=topped"), &report))
	if len(report.Rows) != 1 || report.Rows[0].Target != "default/topped:80/tcp" || report.Rows[0].Ready != 2 ||
		report.Rows[0].Connections == nil || report.Rows[0].Open == nil {
		t.Errorf("--once -o json: %+v", report)
	}
	if text := string(c.top(t, "--filter=topped")); strings.Count(text, "\n") != 2 ||
		!strings.Contains(text, "default/topped  http 80/tcp  2/2") || strings.Contains(text, "\x1b") {
		t.Errorf("without a terminal: %q", text)
	}
	c.topInTerminal(t)
	must(t, c.client.CoreV1().Services("default").Delete(t.Context(), "topped", metav1.DeleteOptions{}))
}

// top runs nftproxy top on the node and returns its output.
func (c *cluster) top(t *testing.T, args ...string) (out []byte) {
	t.Helper()
	must(t, c.lab.Node().Do(func() (err error) {
		out, err = exec.Command(binary(), append([]string{"top"}, args...)...).Output()
		return err
	}))
	return out
}

// topInTerminal types a filter and q.
func (c *cluster) topInTerminal(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary(), "top")
	cmd.Env = append(os.Environ(), "TERM=", "NO_COLOR=1")
	var terminal *os.File
	must(t, c.lab.Node().Do(func() (err error) {
		terminal, err = pty.StartWithSize(cmd, &pty.Winsize{Cols: 100, Rows: 30})
		return err
	}))
	defer terminal.Close()
	all, buf := "", make([]byte, 4096)
	await := func(text string) {
		t.Helper()
		for !strings.Contains(all, text) {
			n, err := terminal.Read(buf)
			if all += string(buf[:n]); err != nil {
				t.Fatalf("no %q, %v: %q", text, err, all)
			}
		}
		all = all[strings.Index(all, text)+len(text):]
	}
	await("default/topped")
	_, err := terminal.WriteString("/topped\r")
	must(t, err)
	await("1 of ")
	await("filter: topped\r\n")
	_, err = terminal.WriteString("q")
	must(t, err)
	await("\x1b[?1049l")
	if err := cmd.Wait(); err != nil {
		t.Errorf("q ends nftproxy top with %v", err)
	}
}
