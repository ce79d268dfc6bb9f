// Package takeover deals with the rules that kube-proxy leaves on a node: it finds them in nftables,
// iptables-legacy and IPVS, removes those in nftables after kube-proxy has ended, and reports the others with
// the commands that remove them.
//
// nftproxy programs its own tables next to kube-proxy's and only then removes kube-proxy's, in one
// transaction: at any moment at least one of the two translates new connections. kube-proxy itself is never
// stopped. A chain of kube-proxy that another program needs stays.
//
// All functions look at the network namespace of the calling thread, except [Running], which asks over HTTP
// in the network namespace of the process. Start reading at [Run].
package takeover

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier/netlink"
)

// Run looks for kube-proxy every takeOverPeriod until it has removed kube-proxy's rules, if it is to remove
// them, and otherwise every kubeProxyPeriod.
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
	// Standing receives what is wrong now about kube-proxy or its rules in nftables, at each look; "": nothing.
	Standing func(note string)
}

// watcher looks for kube-proxy and its rules. It belongs to one goroutine.
type watcher struct {
	Options
	conn *netlink.Conn
	// running returns the mode of the kube-proxy that runs on this node, or "".
	running func(context.Context) (string, error)
	// outside returns what kube-proxy left outside nftables.
	outside func() ([]Leftover, error)

	removed  bool // only once: if the rules come back, another process writes them
	reported map[string]string
}

// Run looks for kube-proxy and its rules until ctx ends, reports them and, with Remove, removes those in
// nftables. Call it after nftproxy has programmed its rules.
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
			w.once(errorKey, err.Error(), func() {
				klog.ErrorS(err, "Failed to find or remove rules of kube-proxy, will retry")
			})
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

// step looks once, and removes the rules if it may. It reports whether it still has to remove them, because
// kube-proxy runs or because it failed.
func (w *watcher) step(ctx context.Context) (pending bool, err error) {
	mode, err := w.running(ctx)
	if err != nil {
		// kube-proxy answers these requests, so another program uses the address.
		klog.V(2).InfoS("Failed to ask whether kube-proxy runs on this node", "err", err)
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
		return w.Remove && !w.removed, nil // kube-proxy uses its rules outside nftables
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
		note += fmt.Sprintf("; kept chain %s of table %s because %s", k.Name, k.Table, k.Why)
	}
	w.Report(corev1.EventTypeNormal, reasonTookOver, note)
}

// reportRunning reports kube-proxy's rules in nftables, and whether kube-proxy runs. Of two nat chains with
// the same hook and priority the kernel calls the one that was added last first, and a translation ends the
// walk (net/netfilter/core.c: nf_hook_entries_grow; net/netfilter/nf_nat_core.c: nf_nat_inet_fn).
func (w *watcher) reportRunning(mode string, found *KubeProxy) {
	var reason, note string
	switch {
	case mode != "":
		reason, note = reasonKubeProxyRuns, fmt.Sprintf("kube-proxy runs on this node, in mode %s: "+
			"whichever of kube-proxy and nftproxy created its chains last translates new connections", mode)
		if w.Remove && !w.removed {
			note += "; nftproxy removes kube-proxy's rules when kube-proxy has ended"
		}
	case found.Any() && w.removed:
		reason, note = reasonKubeProxyRuns, fmt.Sprintf("the rules that nftproxy removed are back, %s: "+
			"a kube-proxy on this node writes them; remove it from this node", found)
	case found.Any():
		reason, note = reasonKubeProxyRules, fmt.Sprintf("kube-proxy left its rules, %s, and no process "+
			"updates them: if their chains are newer than nftproxy's, they translate new connections; "+
			"--take-over removes them", found)
	}
	w.Standing(note)
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
