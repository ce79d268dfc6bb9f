//go:build e2e

package e2e

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// TestHardships lets nftproxy open no more files: changes still arrive and are programmed. Then it stops it
// for a minute, which is longer than the timeouts of its connections to the API server: what changes
// meanwhile is programmed afterwards, and no new connection to the Service fails.
func TestHardships(t *testing.T) {
	c := newCluster(t)
	p := c.startProxy(t)
	spec := corev1.ServiceSpec{Ports: []corev1.ServicePort{tcp("", 80, 8080)}}
	svc := c.service(t, newService("web", spec), "pod-a", "pod-c")
	to := target("tcp", svc.Spec.ClusterIP, 80)
	c.check(t, lab.Row{From: "pod-b", To: to, By: []string{"pod-a", "pod-c"}})
	load := c.lab.Steady(t.Context(), "pod-b", "tcp", to.Addr, 5*time.Millisecond)

	var files unix.Rlimit
	must(t, unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_NOFILE, nil, &files))
	must(t, unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 14, Max: files.Max}, nil))
	c.setEndpoints(t, "web", endpoints("pod-c", "pod-d"))
	c.check(t, lab.Row{From: "pod-b", To: to, By: []string{"pod-c", "pod-d"}})
	must(t, unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_NOFILE, &files, nil))

	must(t, p.cmd.Process.Signal(unix.SIGSTOP))
	c.setEndpoints(t, "web", endpoints("pod-b", "pod-c"))
	time.Sleep(time.Minute)
	must(t, p.cmd.Process.Signal(unix.SIGCONT))
	back := time.Now()
	c.check(t, lab.Row{From: "pod-b", To: to, By: []string{"pod-b", "pod-c"}})
	t.Logf("programmed %v after the stop", time.Since(back).Round(time.Millisecond))
	if r := load.Stop(); r.Lost() > 0 {
		t.Errorf("%d of %d requests were lost: %v", r.Lost(), r.Sent, r.Err)
	}
	c.setEndpoints(t, "web", endpoints("pod-a"))
	c.check(t, lab.Row{From: "pod-b", To: to, By: []string{"pod-a"}})
	servesPorts(t, c)
	p.stop(t)
}
