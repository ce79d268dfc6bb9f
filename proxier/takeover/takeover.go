// Package takeover is everything about the rules that kube-proxy leaves on a node: it finds them, in nftables, in
// iptables-legacy and in IPVS, removes those in nftables when kube-proxy has ended, and reports the others.
//
// nftproxy programs its own tables next to kube-proxy's and removes kube-proxy's only afterwards, in one transaction,
// so that no connection finds neither. The rest is reported with the command that removes it.
//
// All functions look at the network namespace of the calling thread. Start reading at [Run].
package takeover

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

	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/proxier/netlink"
)

// Run looks for kube-proxy every takeOverPeriod while there is something to take over from it, and otherwise every
// kubeProxyPeriod.
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

// Options configure Run.
type Options struct {
	// MetricsAddr is where a kube-proxy with the same configuration serves its metrics; see MetricsAddr.
	MetricsAddr string
	// Remove removes kube-proxy's rules in nftables when kube-proxy has ended.
	Remove bool
	// Report creates an Event about this node: its type, reason and note.
	Report func(kind, reason, note string)
}

// watcher looks for kube-proxy and its rules. It belongs to one goroutine.
type watcher struct {
	Options
	conn *netlink.Conn
	// running returns the mode of a kube-proxy that runs on this node, or "".
	running func(context.Context) (string, error)
	// outside returns what kube-proxy left outside nftables.
	outside func() ([]Leftover, error)

	removed  bool // once: when the rules come back, another process writes them
	reported map[string]string
}

// Run looks for kube-proxy and its rules until ctx ends, reports them and, if so configured, removes those in nftables.
// Call it when nftproxy's rules are programmed, so that no connection finds neither.
func Run(ctx context.Context, o Options) error {
	conn, err := netlink.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	w := &watcher{
		Options: o, conn: conn, outside: FindOutside, reported: map[string]string{},
		running: func(ctx context.Context) (string, error) { return Running(ctx, o.MetricsAddr) },
	}
	for ctx.Err() == nil {
		pending, err := w.step(ctx)
		if err != nil && ctx.Err() == nil {
			w.once(errorKey, err.Error(), func() { klog.ErrorS(err, "Failed to look for rules of kube-proxy, will retry") })
		}
		period := kubeProxyPeriod
		if pending {
			period = takeOverPeriod
		}
		select {
		case <-time.After(period):
		case <-ctx.Done():
		}
	}
	return nil
}

const errorKey = "error"

// step looks once, and removes the rules if so configured. It reports whether that is still to be done, because a
// kube-proxy runs or because it failed.
func (w *watcher) step(ctx context.Context) (pending bool, err error) {
	mode, err := w.running(ctx)
	if err != nil {
		klog.V(2).InfoS("Failed to ask whether kube-proxy runs on this node", "err", err) // no kube-proxy answers so
	}
	found, err := Find(w.conn)
	if err != nil {
		return w.Remove && !w.removed, err
	}
	if w.Remove && !w.removed && mode == "" {
		if found, err = Remove(w.conn); err != nil {
			return true, err
		}
		w.removed = true
		w.reportRemoved(found)
		found = &KubeProxy{}
	}
	w.reportRunning(mode, found)
	if mode != "" {
		return w.Remove && !w.removed, nil // its rules outside nftables are in use
	}
	left, err := w.outside()
	for _, l := range left {
		w.warn(reasonKubeProxyRules+l.What, reasonKubeProxyRules,
			fmt.Sprintf("kube-proxy left %s, which nftproxy does not remove: %s", l.What, l.Advice))
	}
	if err == nil {
		w.reported[errorKey] = ""
	}
	return w.Remove && !w.removed, err
}

func (w *watcher) reportRemoved(found *KubeProxy) {
	if !found.Any() {
		return
	}
	note := "took over from kube-proxy: removed " + found.String()
	for _, k := range found.Kept {
		note += fmt.Sprintf("; kept chain %s of table %s, because %s", k.Name, k.Table, k.Why)
	}
	w.Report(corev1.EventTypeNormal, reasonTookOver, note)
}

// reportRunning reports kube-proxy's rules in nftables, and whether kube-proxy runs.
func (w *watcher) reportRunning(mode string, found *KubeProxy) {
	var reason, note string
	switch {
	case mode != "":
		reason, note = reasonKubeProxyRuns, fmt.Sprintf(
			"kube-proxy runs on this node, in mode %s: of two nat chains of one priority the kernel calls the newer one first", mode)
		if w.Remove && !w.removed {
			note += "; nftproxy removes kube-proxy's rules when it has ended"
		}
	case found.Any() && w.removed:
		reason, note = reasonKubeProxyRuns, fmt.Sprintf(
			"the rules that nftproxy took over from kube-proxy are back, %s: kube-proxy runs on this node, and should not", found)
	case found.Any():
		reason, note = reasonKubeProxyRules, fmt.Sprintf("kube-proxy left its rules, %s, and nothing keeps them up to date: "+
			"if they are newer than nftproxy's, they translate connections; --take-over removes them", found)
	}
	w.warn("nftables", reason, note)
}

// warn reports a note once, and again after it has changed. An empty note reports nothing.
func (w *watcher) warn(key, reason, note string) {
	w.once(key, note, func() {
		if note != "" {
			w.Report(corev1.EventTypeWarning, reason, note)
		}
	})
}

// once calls report unless the last text under the key is the same.
func (w *watcher) once(key, text string, report func()) {
	if w.reported[key] != text {
		w.reported[key] = text
		report()
	}
}

// Leftover is something that kube-proxy left outside nftables.
type Leftover struct {
	What   string
	Advice string // the commands that remove it
}

// FindOutside returns what kube-proxy left outside nftables, which nftproxy does not remove.
func FindOutside() (left []Leftover, err error) {
	tables, err := XTables()
	var chains []string
	for _, t := range tables {
		if n := len(slices.DeleteFunc(t.Chains, func(c kernel.TableChain) bool { return !isKubeProxys(c) })); n > 0 {
			chains = append(chains, fmt.Sprintf("chains KUBE-* of table %s %s (%d)", t.Family, t.Name, n))
		}
	}
	if len(chains) > 0 {
		left = append(left, Leftover{"rules of iptables-legacy: " + strings.Join(chains, ", "),
			"run `kube-proxy --cleanup` from kube-proxy's image on this node"})
	}
	v, ipvsErr := FindIPVS()
	if v.KubeProxy() {
		left = append(left, Leftover{v.String(),
			"when the connections through them have ended, run `ipvsadm --clear` and `ip link delete kube-ipvs0`, " +
				"or `kube-proxy --cleanup` from its image"})
	}
	return left, errors.Join(err, ipvsErr)
}

// defaultMetricsAddr is where kube-proxy serves its metrics by default.
const defaultMetricsAddr = "127.0.0.1:10249"

// MetricsAddr returns where a kube-proxy with the configured metricsBindAddress serves its metrics.
func MetricsAddr(configured string) string { return cmp.Or(configured, defaultMetricsAddr) }
