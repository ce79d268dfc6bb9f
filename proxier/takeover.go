package proxier

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier/config"
	"github.com/nftproxy/nftproxy/proxier/legacy"
	"github.com/nftproxy/nftproxy/proxier/nft"
)

// How often it is looked for kube-proxy: while there is something to take over from
// it, and otherwise.
const (
	takeOverPeriod  = 5 * time.Second
	kubeProxyPeriod = time.Minute
)

// Reasons of Events about kube-proxy.
const (
	reasonKubeProxyRuns  = "KubeProxyRuns"
	reasonKubeProxyRules = "KubeProxyRules"
	reasonTookOver       = "TookOver"
)

// takeOver watches for kube-proxy, and takes over from it if it is to. It is owned by
// one goroutine.
type takeOver struct {
	conn   *nft.Conn
	remove bool // what kube-proxy has left is to be removed
	// running returns the mode of a kube-proxy that runs on this node, or "".
	running func(context.Context) (string, error)
	// outside returns what kube-proxy has outside nftables.
	outside func() ([]leftover, error)
	note    func(kind, reason, note string)

	removed bool // once: rules that come back have somebody who writes them
	told    map[string]string
}

// watchKubeProxy takes over from kube-proxy, if that is configured, and tells what
// there is of it on this node and does not belong beside nftproxy, until ctx ends. It
// begins when everything is programmed, so that no connection finds neither rules.
func (p *Proxier) watchKubeProxy(ctx context.Context) error {
	select {
	case <-p.done:
	case <-ctx.Done():
		return nil
	}
	conn, err := nft.Dial(nft.Options{NetNS: p.netns})
	if err != nil {
		return err
	}
	defer conn.Close()
	t := &takeOver{
		conn: conn, remove: p.config.TakeOver, note: p.events.nodeNote, told: map[string]string{},
		running: func(ctx context.Context) (string, error) { return legacy.Running(ctx, metricsAddr(p.config)) },
		outside: outsideNFTables,
	}
	if p.netns != 0 {
		t.outside = func() ([]leftover, error) { return nil, nil } // what it finds is in the process's own namespace
	}
	for ctx.Err() == nil {
		pending, err := t.step(ctx)
		if err != nil && ctx.Err() == nil {
			t.tell(errorKey, func() { klog.ErrorS(err, "It is not known what kube-proxy has left on this node") }, err.Error())
		}
		if pending {
			pause(ctx, takeOverPeriod)
		} else {
			pause(ctx, kubeProxyPeriod)
		}
	}
	return nil
}

const errorKey = "error"

// step looks once, and removes what is to be removed. It reports whether that is
// still to be done, because a kube-proxy runs or because it failed.
func (t *takeOver) step(ctx context.Context) (pending bool, err error) {
	mode, err := t.running(ctx)
	if err != nil {
		klog.V(2).InfoS("It is not known whether kube-proxy runs on this node", "reason", err) // no kube-proxy answers so
	}
	found, err := t.conn.KubeProxy()
	if err != nil {
		return t.remove && !t.removed, err
	}
	if t.remove && !t.removed && mode == "" {
		if found, err = t.conn.RemoveKubeProxy(); err != nil {
			return true, err
		}
		t.removed = true
		t.tellRemoved(found)
		found = &nft.KubeProxy{}
	}
	t.tellRunning(mode, found)
	if mode != "" {
		return t.remove && !t.removed, nil // what it has outside nftables is not left yet
	}
	left, err := t.outside()
	for _, l := range left {
		t.warn(reasonKubeProxyRules+l.What, reasonKubeProxyRules,
			fmt.Sprintf("kube-proxy has left %s, which nftproxy does not remove: %s", l.What, l.Advice))
	}
	if err == nil {
		t.told[errorKey] = ""
	}
	return t.remove && !t.removed, err
}

func (t *takeOver) tellRemoved(found *nft.KubeProxy) {
	if !found.Any() {
		return
	}
	note := "took over from kube-proxy: removed " + found.String()
	for _, k := range found.Kept {
		note += fmt.Sprintf("; left chain %s of table %s, for %s", k.Name, k.Table, k.Why)
	}
	t.note(corev1.EventTypeNormal, reasonTookOver, note)
}

// tellRunning tells what there is of kube-proxy in nftables, and whether it is at work.
func (t *takeOver) tellRunning(mode string, found *nft.KubeProxy) {
	var reason, note string
	switch {
	case mode != "":
		reason, note = reasonKubeProxyRuns, fmt.Sprintf("kube-proxy runs on this node, in mode %s: a connection is translated by the rules that came first", mode)
		if t.remove && !t.removed {
			note += "; when it has ended, what it leaves is removed"
		}
	case found.Any() && t.removed:
		reason, note = reasonKubeProxyRuns, fmt.Sprintf("what was taken over from kube-proxy is back, %s: it runs on this node, and should not", found)
	case found.Any():
		reason, note = reasonKubeProxyRules, fmt.Sprintf("kube-proxy's rules are there, %s, and nobody keeps them up to date: "+
			"if they were there before nftproxy's, they count; --take-over removes them", found)
	}
	t.warn("nftables", reason, note)
}

// warn tells something once, and again after it has been otherwise. An empty note is
// that there is nothing to tell.
func (t *takeOver) warn(key, reason, note string) {
	t.tell(key, func() {
		if note != "" {
			t.note(corev1.EventTypeWarning, reason, note)
		}
	}, note)
}

// tell calls how unless what was told last under the key is the same.
func (t *takeOver) tell(key string, how func(), what string) {
	if t.told[key] != what {
		t.told[key] = what
		how()
	}
}

// leftover is something of kube-proxy's outside nftables.
type leftover struct {
	What   string
	Advice string // the commands that remove it
}

// outsideNFTables finds what kube-proxy has left that nftproxy does not remove, in the
// network namespace of the calling thread.
func outsideNFTables() (left []leftover, err error) {
	tables, err := legacy.XTables()
	var chains []string
	for _, t := range tables {
		ours := slices.DeleteFunc(slices.Clone(t.Chains), func(name string) bool { return !nft.IsKubeProxyChain(name) })
		if len(ours) > 0 {
			chains = append(chains, fmt.Sprintf("chains KUBE-* of table %s %s (%d)", t.Family, t.Name, len(ours)))
		}
	}
	if len(chains) > 0 {
		left = append(left, leftover{"rules of iptables-legacy: " + strings.Join(chains, ", "),
			"run `kube-proxy --cleanup` from kube-proxy's image on this node"})
	}
	v, ipvsErr := legacy.FindIPVS()
	if v.KubeProxy() {
		left = append(left, leftover{v.String(),
			"when the connections through them have ended, `ipvsadm --clear` and `ip link delete kube-ipvs0`, or `kube-proxy --cleanup` from its image"})
	}
	return left, errors.Join(err, ipvsErr)
}

// defaultMetricsAddr is where kube-proxy serves its metrics if nothing else is configured.
const defaultMetricsAddr = "127.0.0.1:10249"

// metricsAddr is where a kube-proxy with the same configuration serves its metrics.
func metricsAddr(c *config.Config) string {
	return cmp.Or(c.Kube.MetricsBindAddress, defaultMetricsAddr)
}
