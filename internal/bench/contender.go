package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// contender is a proxy that is measured.
type contender struct {
	name    string // as in the table
	version string
	args    func(n *node) []string
}

// configText is what every proxy is configured with. The pause between two syncs is the shortest that kube-proxy
// can be told; what its default of a second saves is another matter.
const configText = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: %s
clientConnection: {kubeconfig: %q}
hostnameOverride: %s
clusterCIDR: 10.244.0.0/16,fd00:10:244::/56
detectLocalMode: ClusterCIDR
metricsBindAddress: 127.0.0.1:10249
enableProfiling: true
conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
nftables: {minSyncPeriod: %s, syncPeriod: 1h}
`

// contenders returns what is compared. The floor is a bare watch with one element written for each event.
func contenders(o options, dir string, c *cluster) ([]contender, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	list := []contender{
		{"floor", "", func(n *node) []string {
			return []string{self, "floor", "-kubeconfig", c.plane.AdminKubeconfig, "-services", strconv.Itoa(c.services)}
		}},
	}
	for _, p := range []struct{ name, binary, minSync string }{
		{"nftproxy", o.nftproxy, ""}, {"before", o.before, ""}, {"kube-proxy", o.kubeProxy, "1ms"},
	} {
		if p.binary == "" {
			continue
		}
		version, err := exec.Command(p.binary, "--version").Output()
		if err != nil {
			return nil, fmt.Errorf("%s --version: %w", p.binary, err)
		}
		if p.minSync == "" {
			p.minSync = "0s" // its default, which adapts
		}
		config := filepath.Join(dir, p.name+".yaml")
		text := fmt.Sprintf(configText, "nftables", c.plane.AdminKubeconfig, lab.NodeName, p.minSync)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			return nil, err
		}
		list = append(list, contender{p.name, strings.TrimSpace(string(version)), func(*node) []string {
			return []string{p.binary, "--config", config, "--v=1"}
		}})
	}
	return list, nil
}

// node is a machine in a lab of its own, with a proxy that runs on it.
type node struct {
	who   contender
	lab   *lab.Lab
	relay *relay
	gen   *generation
	pod   *server // on pod-b
	dir   string
	proxy *process
}

func newNode(who contender, c *cluster, dir string) (*node, error) {
	l, err := lab.New(lab.Options{})
	if err != nil {
		return nil, err
	}
	n := &node{who: who, lab: l, dir: dir}
	if n.relay, err = newRelay(l.Node(), c); err == nil {
		n.gen, err = newGeneration(l.Node())
	}
	if err == nil {
		err = noSubscribers(l.Node())
	}
	if err == nil {
		err = brief(l.Node())
	}
	if err == nil {
		n.pod, err = serve(l.Namespace("pod-b"), netip.AddrPortFrom(podAddr, podPort))
	}
	if err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

func (n *node) close() {
	if n.proxy != nil {
		n.proxy.stop()
	}
	if n.gen != nil {
		_ = n.gen.conn.Close()
	}
	if n.relay != nil {
		_ = n.relay.listener.Close()
	}
	if n.pod != nil {
		n.pod.close()
	}
	_ = n.lab.Close()
}

// brief has connection tracking forget what was reset: there is room for 262144 flows, and a benchmark makes more.
func brief(ns *lab.Namespace) error {
	return ns.Do(func() error {
		return os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close", []byte("1\n"), 0)
	})
}

// programLimit is how long a proxy may take to program all there is.
const programLimit = 10 * time.Minute

// stillness is for how long nothing is committed once all is programmed.
const stillness = time.Second

// programmed is what came of a start.
type programmed struct {
	took    time.Duration // from before the process was started to the last commit
	commits uint32
}

// start starts the proxy and returns when all is programmed: nothing is committed any more, and the first and
// the last Service answer. What is to go on meanwhile is called once the proxy is started.
func (n *node) start(ctx context.Context, started ...func()) (programmed, error) {
	before, err := n.gen.now()
	if err != nil {
		return programmed{}, err
	}
	if n.proxy, err = startProcess(n.lab.Node(), filepath.Join(n.dir, n.who.name+".log"), n.who.args(n)); err != nil {
		return programmed{}, err
	}
	for _, f := range started {
		go f()
	}
	moved, gen := n.proxy.begun, before
	for deadline := time.Now().Add(programLimit); ; {
		if err := errors.Join(ctx.Err(), n.proxy.alive()); err != nil {
			return programmed{}, err
		}
		if moved, gen, err = n.gen.quiet(moved, gen, stillness, programLimit); err != nil {
			return programmed{}, err
		}
		if n.answers(firstAddr) && n.answers(lastAddr) {
			now, err := n.gen.now()
			if err != nil || now == gen {
				return programmed{moved.Sub(n.proxy.begun), gen - before}, err
			}
			continue // something was committed just now
		}
		if time.Now().After(deadline) {
			return programmed{}, fmt.Errorf("%s has not programmed the Services within %v; see %s", n.who.name, programLimit, n.proxy.log)
		}
	}
}

func (n *node) answers(ip netip.Addr) bool {
	return n.lab.Namespace("pod-a").Do(func() error {
		fd, err := connect(unix.SOCK_STREAM, netip.AddrPortFrom(ip, servicePort))
		if err == nil {
			hangUp(fd)
		}
		return err
	}) == nil
}
