//go:build e2e

package e2e

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nftproxy/nftproxy/internal/faults"
	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/explain"
)

// TestFaults seeds the faults of docs/troubleshooting.md that need an API server: they do to connections what
// the page says, and the command of the page prints what the page says.
func TestFaults(t *testing.T) {
	page, err := faults.Read("../../docs/troubleshooting.md")
	must(t, err)
	c := newCluster(t)
	p := c.startProxy(t)
	c.service(t, newService("web", corev1.ServiceSpec{ClusterIP: "10.96.0.10",
		Ports: []corev1.ServicePort{tcp("http", 80, 8080)}}), "pod-c")
	web := target("tcp", "10.96.0.10", 80)
	reaches := func(pod string) {
		t.Helper()
		c.check(t, lab.Row{From: "pod-b", To: web, By: []string{pod}})
	}
	refused := lab.Row{From: "pod-b", To: web, Refused: true}

	reaches("pod-c")
	p.stop(t)
	_, err = c.lab.Node().Nft("delete element ip nftproxy services { 10.96.0.10 . tcp . 80 }")
	must(t, err)
	c.check(t, refused)
	c.holds(t, page["another-program-changed-the-tables"])
	p = c.startProxy(t)
	reaches("pod-c")

	p.stop(t)
	c.setEndpoints(t, "web", endpoints("pod-d"))
	must(t, c.lab.Stop(target("tcp", "10.244.2.11", 8080).Addr, "tcp"))
	c.check(t, refused)
	c.holds(t, page["nftproxy-does-not-run"])
	c.startProxy(t)
	reaches("pod-d")

	c.plane.APIServer.Kill()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if out, _ := c.output(t, "explain", "default/web"); strings.Contains(out, "may be old") {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("a minute after the API server has ended:\n%s", out)
		}
	}
	must(t, c.lab.Stop(target("tcp", "10.244.2.12", 8080).Addr, "tcp"))
	c.check(t, refused)
	c.holds(t, page["nftproxy-is-behind"])
}

// holds runs the command of the page on the node.
func (c *cluster) holds(t *testing.T, fault faults.Fault) {
	t.Helper()
	out, code := c.output(t, fault.Args...)
	if differs := fault.Differs(out); differs != "" {
		t.Errorf("%s: %s", fault.Name, differs)
	}
	if code != fault.Exit {
		t.Errorf("%s: exit code %d, want %d", fault.Name, code, fault.Exit)
	}
}

// output runs nftproxy on the node, with the variable that its pod has, and returns what it prints and its
// exit code.
func (c *cluster) output(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	err := c.lab.Node().Do(func() error {
		cmd := exec.Command(binary(), args...)
		cmd.Env = append(os.Environ(), "NODE_NAME="+lab.NodeName)
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		return cmd.Run()
	})
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if stdout.Len() == 0 {
			t.Fatalf("%v: %s", args, stderr.String())
		}
		return stdout.String(), exit.ExitCode()
	}
	must(t, err)
	return stdout.String(), 0
}

// TestExplainWithoutDaemon stops nftproxy: explain reads what is wanted from the API server, finds that the
// kernel has it in the same slots, and names what changed since. Without the API server it reads the kernel.
func TestExplainWithoutDaemon(t *testing.T) {
	c := newCluster(t)
	p := c.startProxy(t)
	services := map[string]corev1.ServiceSpec{
		"plain": {ClusterIP: "10.96.0.31"},
		"nodes": {ClusterIP: "10.96.0.32", Type: corev1.ServiceTypeNodePort,
			ExternalIPs: []string{"203.0.113.32"}, ExternalTrafficPolicy: "Local"},
		"sticky": {ClusterIP: "10.96.0.33", SessionAffinity: corev1.ServiceAffinityClientIP},
	}
	for name, spec := range services {
		spec.Ports = []corev1.ServicePort{tcp("http", 80, 8080)}
		if spec.Type != "" {
			spec.Ports[0].NodePort = 30032
		}
		svc := c.service(t, newService(name, spec), "pod-a", "pod-b", "pod-c")
		// The endpoints get other slots than in order.
		c.check(t, lab.Row{From: "pod-b", To: target("tcp", svc.Spec.ClusterIP, 80), Sticky: name == "sticky",
			By: []string{"pod-a", "pod-b", "pod-c"}})
		c.setEndpoints(t, name, endpoints("pod-b", "pod-c", "pod-d"))
	}
	for name, spec := range services {
		c.awaitExplain(t, "10.244.2.12", "default/"+name)
		c.check(t, lab.Row{From: "client", To: target("tcp", spec.ClusterIP, 80), Sticky: name == "sticky",
			By: []string{"pod-b", "pod-c", "pod-d"}})
	}
	p.stop(t)
	targets := map[string]string{"default/plain": "pod", "10.96.0.31:80": "node",
		"default/nodes:30032": "outside", "192.0.2.1:30032": "outside", "30032": "outside",
		"203.0.113.32:80": "pod", "default/sticky": "pod"}
	config := "--config=" + c.config
	for to, from := range targets {
		out, code := c.output(t, "explain", to, "--from="+from, config)
		for _, want := range []string{"\nkernel    as wanted: ", "objects   read now: from the API server",
			"left out", "but no nftproxy answers on this node\n"} {
			if to != "192.0.2.1:30032" && to != "30032" && to != "default/nodes:30032" && want == "left out" {
				continue // only these lead to endpoints on this node alone
			}
			if !strings.Contains(out, want) || code != 0 {
				t.Errorf("%s: exit code %d, no %q in:\n%s", to, code, want, out)
			}
		}
	}
	c.setEndpoints(t, "plain", endpoints("pod-c", "pod-d"))
	must(t, c.client.CoreV1().Services("default").Delete(t.Context(), "nodes", metav1.DeleteOptions{}))
	for to, want := range map[string]string{
		"default/plain":    `want { 10.96.0.31 . tcp . 80 comment "default/plain:http" : 4c00:2 }`,
		"10.96.0.31:80":    "want { 10.96.0.31 . tcp . 80 . 1 : 10.244.2.11 . 8080 }",
		"203.0.113.32:80":  "has { 203.0.113.32 . tcp . 80",
		"default/nonesuch": "there is no Service of that name",
	} {
		out, code := c.output(t, "explain", to, config)
		if !strings.Contains(out, want) || code != 2 && !strings.HasSuffix(to, "nonesuch") {
			t.Errorf("%s: exit code %d, no %q in:\n%s", to, code, want, out)
		}
	}
	c.plane.APIServer.Kill()
	out, code := c.output(t, "explain", "default/plain", config)
	if code != 0 || !strings.Contains(out, "objects   not read: what is wanted is not known: read from the API "+
		"server: list nodes: dial tcp") {
		t.Errorf("without the API server: exit code %d:\n%s", code, out)
	}
}

// awaitExplain waits until the running nftproxy says that connections can reach an endpoint.
func (c *cluster) awaitExplain(t *testing.T, endpoint, service string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var report explain.Report
		report, _ = c.explain(t, service)
		for _, e := range report.Endpoints {
			if e.Address == endpoint {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("after 30 s: %+v", report)
		}
	}
}
