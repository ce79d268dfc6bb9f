package proxier

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier/desired"
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
	r.summarise()
	if len(r.ports) > 0 {
		r.reportPorts(r.checks.Retry())
	}
	if len(r.loopbacks) > 0 {
		r.reportLocalhost(r.loopback.Retry())
	}
}

// reported are the problems of one kind that exist and were reported, and since when.
type reported map[desired.Problem]time.Time

// set reports those of the problems that are new, and forgets those that are gone.
func (r *reported) set(e *eventer, problems []desired.Problem) {
	before := *r
	*r = make(reported, len(problems))
	for _, p := range problems {
		since, known := before[p]
		if _, twice := (*r)[p]; !known && !twice {
			e.reportService(p.Service, p.Reason, p.Message)
		}
		if !known {
			since = time.Now()
		}
		(*r)[p] = since
	}
}

// reportPorts reports healthCheckNodePorts that could not be opened.
func (r *reconciler) reportPorts(errs []*health.ListenError) {
	problems := make([]desired.Problem, 0, len(errs))
	for _, err := range errs {
		problems = append(problems, desired.Problem{
			Service: err.Service, Reason: reasonHealthCheck, Message: err.Error()})
	}
	r.ports.set(r.events, problems)
}

// reportSynced logs a sync. A line for each would fill the log with changes of endpoints; so by default there
// is one for the first sync, for repairs, and for a success after errors that were logged.
func (r *reconciler) reportSynced(
	why reason, services int, d *rules.Delta, took time.Duration, repaired bool) {
	first, recovered := r.lastSync.IsZero(), r.syncing.succeeded()
	if first {
		why = start // of several reasons a sync has the greatest
	}
	if d.Empty() && !first && !recovered {
		return
	}
	v, message := klog.V(2), "Synced"
	if first || recovered || repaired {
		v = klog.V(0)
	}
	if d.Empty() {
		message = "In sync, there was nothing to write"
	}
	v.InfoS(message, "reason", why, "services", services, "frontends", r.builder.Ruleset().Len(),
		"chains", len(d.Chains), "added", len(d.Add), "deleted", len(d.Delete), "duration", took)
}

// reportRepaired reports that a sync repaired changes by another process. On mere suspicion it did so only if
// nothing else changed that a full sync programs. It returns whether there was something to report.
func (r *reconciler) reportRepaired(why reason, changed bool, d *rules.Delta) bool {
	chains, elements := d.Repairs()
	if chains+elements == 0 || why != drift && (why != suspicion || changed) {
		return false
	}
	r.repairs++
	r.repairedAt, r.repaired = time.Now(), fmt.Sprintf(
		"another process changed nftproxy's tables: repaired %d chains and %d elements", chains, elements)
	r.metrics.DriftRepaired.Inc()
	r.events.reportNode(corev1.EventTypeWarning, reasonDriftRepaired, r.repaired)
	return true
}
