package proxier

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/nftproxy/nftproxy/internal/lab"
)

const configHeader = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clusterCIDR: 10.244.0.0/16,fd00:10:244::/56
metricsBindAddress: 0.0.0.0:10249
`

func loopbackUp(t *testing.T, ns *lab.Namespace) {
	t.Helper()
	if err := ns.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	}); err != nil {
		t.Fatal(err)
	}
}

// metricLine returns the line of a metric without labels on the page of a daemon in a namespace.
func metricLine(ns *lab.Namespace, name string) string {
	transport := &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (conn net.Conn, err error) {
			err = ns.Do(func() error {
				conn, err = (&net.Dialer{}).DialContext(ctx, network, "127.0.0.1:10249")
				return err
			})
			return conn, err
		}}
	resp, err := (&http.Client{Transport: transport, Timeout: 5 * time.Second}).Get("http://node/metrics")
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	_, line, _ := strings.Cut(string(body), "\n"+name+" ")
	line, _, _ = strings.Cut(line, "\n")
	return fmt.Sprint(name, " ", line, err)
}

func awaitMetric(t *testing.T, p *process, ns *lab.Namespace, name, want string) {
	t.Helper()
	want = fmt.Sprint(name, " ", want, error(nil))
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		got := metricLine(ns, name)
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s, want %s:\n%s", got, want, p.log())
		}
	}
}

// TestConfigFile changes the configuration file of a running daemon. One that cannot be used, or means the
// same as before, does not end it; another one does, with exit code 0. The same without inotify.
func TestConfigFile(t *testing.T) {
	program := filepath.Join(scratch(t), "nftproxy")
	for _, h := range []hardship{
		{name: "inotify"},
		{name: "polling", script: "echo 0 > /proc/sys/user/max_inotify_instances"},
	} {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			const invalid = "nftproxy_config_invalid"
			d, etc := &daemon{dir: webManifests(t, podA)}, &daemon{dir: t.TempDir()}
			etc.write(t, "config.conf", configHeader+"logging: {format: json}\n")
			p := h.start(t, program, "--source="+d.dir, "--hostname-override=node-a",
				"--config="+filepath.Join(etc.dir, "config.conf"))
			ns, err := lab.NamespaceOf(p.cmd.Process.Pid)
			if err != nil {
				t.Fatal(err)
			}
			defer ns.Close()
			loopbackUp(t, ns)
			p.untilProgrammed(t, ns, d.dir)
			awaitMetric(t, p, ns, invalid, "0")
			etc.write(t, "config.conf", configHeader+"clusterCIDRR: [\n")
			awaitMetric(t, p, ns, invalid, "1")
			if log := p.log(); !strings.Contains(log, `"reason":"ConfigInvalid"`) {
				t.Errorf("the reason is not in the log:\n%s", log)
			}
			d.write(t, "web-endpoints.yaml", endpointsManifest("web", podA, podB))
			p.untilProgrammed(t, ns, d.dir)
			etc.write(t, "config.conf", configHeader+"mode: nftables # as before\nlogging: {format: json}\n")
			awaitMetric(t, p, ns, invalid, "0")
			hardFail := configHeader + "bindAddressHardFail: true\nhealthzBindAddress: "
			etc.write(t, "config.conf", hardFail+"203.0.113.1:10256\n") // which this node does not have
			awaitMetric(t, p, ns, invalid, "1")
			if err := os.Remove(filepath.Join(etc.dir, "config.conf")); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-p.exited:
				t.Fatalf("the daemon has ended with %v:\n%s", err, p.log())
			case <-time.After(3 * time.Second): // longer than it polls
			}
			etc.write(t, "config.conf", hardFail+"127.0.0.1:10256\n") // this process has 0.0.0.0:10256
			if err := p.wait(t); err != nil {
				t.Errorf("with another configuration the daemon ended with %v", err)
			}
			if polls := strings.Count(p.log(), "Polling files"); (polls == 2) != (h.name == "polling") {
				t.Errorf("%d lines about polling:\n%s", polls, p.log())
			}
		})
	}
}
