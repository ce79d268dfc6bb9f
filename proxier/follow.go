package proxier

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier/desired"
	"github.com/nftproxy/nftproxy/proxier/health"
	"github.com/nftproxy/nftproxy/proxier/source"
)

// follow runs the source: the API server, or the manifests that are configured.
func (p *Proxier) follow(ctx context.Context) error {
	if p.client != nil {
		return source.NewAPI(p.client, p.name).Run(ctx, p, source.Reporter{
			Failed: p.apiFailed, Recovered: p.apiRecovered, Heard: p.apiHeard,
		})
	}
	p.health.SetNodeEligible(true) // manifests do not drain a node
	return source.NewDir(p.config.Source).Run(ctx, p, func(err error) {
		if p.invalid.passes() {
			desired.LogProblem(err)
		}
	})
}

// Apply records an object of the source.
func (p *Proxier) Apply(obj runtime.Object) {
	if node, ok := obj.(*corev1.Node); ok && node.Name == p.name {
		p.applyNode(node)
	} else {
		p.state.Apply(obj)
	}
	p.changed(obj)
}

// applyNode records our Node.
func (p *Proxier) applyNode(node *corev1.Node) {
	before := p.state.Node()
	p.state.Apply(node)
	if p.client != nil {
		p.health.SetNodeEligible(health.NodeEligible(node))
	}
	switch now := p.state.Node(); {
	case now.Kept && !before.Kept:
		what := fmt.Sprintf("the Node has no addresses any more: nodePorts and health checks stay on its last "+
			"ones: %s", joinAddrs(now.Primary))
		p.notes.set(aboutAddresses, what, "See whether the kubelet runs and has registered the Node.")
		p.events.reportNode(corev1.EventTypeWarning, reasonAddressesMissing, what)
	case before.Kept && !now.Kept:
		p.notes.clear(aboutAddresses)
		klog.InfoS("Node has addresses again", "addresses", now.Primary)
	}
}

func joinAddrs(addrs []netip.Addr) string {
	texts := make([]string, len(addrs))
	for i, a := range addrs {
		texts[i] = a.String()
	}
	return strings.Join(texts, ", ")
}

// Delete removes an object of the source.
func (p *Proxier) Delete(obj runtime.Object) {
	p.state.Delete(obj)
	if node, ok := obj.(*corev1.Node); ok && node.Name == p.name {
		p.health.SetNodeEligible(false)
	}
	p.changed(obj)
}

// changed counts the change and wakes the reconciler.
func (p *Proxier) changed(obj runtime.Object) {
	switch obj.(type) {
	case *corev1.Service:
		p.metrics.ServiceChanges.Inc()
		p.metrics.ServiceChangesPending.Inc()
	case *discoveryv1.EndpointSlice:
		p.metrics.EndpointChanges.Inc()
		p.metrics.EndpointChangesPending.Inc()
	}
	p.metrics.SyncQueued()
	p.health.Queued()
	signal(p.wake)
}

// Synced says that the source has delivered all objects that existed at its start.
func (p *Proxier) Synced() { p.once.Do(func() { close(p.synced) }) }

// apiFailed reports that objects of a resource could not be read. The informer retries.
func (p *Proxier) apiFailed(err error) {
	klog.ErrorS(err, "Failed to list or watch, retrying")
	p.notes.set(aboutAPI, fmt.Sprintf("the API server cannot be read: %v", err),
		"See whether the API server answers this node, and what the service account of nftproxy may read. "+
			"Until then connections follow the last endpoints that were read.")
}

// apiRecovered reports that what failed works again.
func (p *Proxier) apiRecovered(what string) {
	klog.InfoS("Lists and watches again", "because", what)
	p.notes.clear(aboutAPI)
}

func (p *Proxier) apiHeard(resource string) {
	p.metrics.APIServerHeard(resource)
	p.notes.hear(resource)
}
