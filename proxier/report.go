package proxier

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier/health"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Reasons of Events besides those about Services (proxier/desired) and kube-proxy (proxier/takeover).
const (
	reasonDriftRepaired    = "DriftRepaired"
	reasonHealthCheck      = "FailedToStartServiceHealthcheck"
	reasonLocalhost        = "FailedToStartLocalhostNodePort"
	reasonAddressesMissing = "NodeAddressesMissing"
)

// reportProgress brings health checks and gauges in line with the ruleset.
func (r *reconciler) reportProgress() {
	ruleset, e := r.builder.Ruleset(), r.builder.Environment()
	checks := map[service.Name]health.Service{}
	for name, c := range ruleset.HealthChecks() {
		checks[name] = health.Service{Port: c.Port, LocalEndpoints: c.LocalReady}
	}
	r.reportPorts(r.checks.Sync(checks, e.HealthCheckAddrs))
	r.reportUnrestricted(e.Unrestricted)
	r.metrics.Services.Set(float64(ruleset.Services()))
	r.metrics.FrontendConflicts.Set(float64(ruleset.Conflicts()))
	refused := ruleset.Refused()
	r.metrics.SetRefused(refused.Limit, refused.Reserved)
	for _, f := range e.Config.Families {
		r.metrics.SetFrontends(f, ruleset.Frontends(f))
		n := ruleset.NoLocal(f)
		r.metrics.NoLocalEndpoints(f, n.Internal, n.External)
	}
}

// reportUnrestricted logs families whose nodePorts are on more addresses than "primary" suggests.
func (r *reconciler) reportUnrestricted(families []service.Family) {
	if slices.Equal(families, r.unrestricted) {
		return
	}
	r.unrestricted = families
	for _, f := range families {
		klog.InfoS("Node has no address of this family, serving nodePorts on all addresses of the family",
			"family", f.APIName())
	}
}

// reopenPorts tries again to open healthCheckNodePorts, and nodePorts on loopback addresses, that could not
// be opened.
func (r *reconciler) reopenPorts() {
	if r.closed {
		r.reportPorts(r.checks.Retry())
	}
	if r.unserved {
		r.reportLocalhost(r.loopback.Retry())
	}
}

// reportPorts reports healthCheckNodePorts that could not be opened.
func (r *reconciler) reportPorts(errs []*health.ListenError) {
	r.closed = len(errs) > 0
	for _, err := range errs {
		r.events.reportService(err.Service, reasonHealthCheck, err.Error())
	}
}

// reportRepaired reports that a sync repaired changes by another process. On mere suspicion it did so only if
// nothing else changed that a full sync programs.
func (r *reconciler) reportRepaired(why reason, changed bool, d *rules.Delta) {
	chains, elements := d.Repairs()
	if chains+elements == 0 || why != drift && (why != suspicion || changed) {
		return
	}
	r.metrics.DriftRepaired.Inc()
	r.events.reportNode(corev1.EventTypeWarning, reasonDriftRepaired, fmt.Sprintf(
		"another process changed nftproxy's tables: repaired %d chains and %d elements", chains, elements))
}
