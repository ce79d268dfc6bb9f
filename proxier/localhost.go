package proxier

import (
	"net/netip"

	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier/desired"
	"github.com/nftproxy/nftproxy/proxier/localhost"
	"github.com/nftproxy/nftproxy/rules/service"
)

// serveLocalhost brings the nodePorts on loopback addresses in line with the ruleset.
func (r *reconciler) serveLocalhost() {
	loopbacks, conflicts := r.builder.Ruleset().Loopbacks()
	problems := make([]desired.Problem, 0, len(conflicts))
	for _, c := range conflicts {
		problems = append(problems, desired.Conflict(c))
	}
	r.loopbackConflicts.set(r.events, problems)
	ports := make(map[netip.AddrPort]localhost.NodePort, len(loopbacks))
	for f, l := range loopbacks {
		ports[netip.AddrPortFrom(f.Addr, f.Port)] = localhost.NodePort{
			Service: l.Service, Backends: l.Backends, Affinity: l.Affinity}
	}
	r.reportLocalhost(r.loopback.Sync(ports))
}

// reportLocalhost reports nodePorts on loopback addresses that could not be opened.
func (r *reconciler) reportLocalhost(errs []*localhost.ListenError) {
	failed := map[service.Family]int{}
	problems := make([]desired.Problem, 0, len(errs))
	for _, err := range errs {
		failed[service.FamilyOf(err.Addr.Addr())]++
		problems = append(problems, desired.Problem{
			Service: err.Service, Reason: reasonLocalhost, Message: err.Error()})
	}
	r.loopbacks.set(r.events, problems)
	for _, f := range r.builder.Environment().Config.Families {
		r.metrics.LocalhostNodePorts(f, r.loopback.Listeners(f), failed[f])
	}
}

// localhostFailed logs a connection to a nodePort on a loopback address that failed. The client sees a reset.
func localhostFailed(err error) {
	klog.V(4).InfoS("Failed to serve connection to nodePort on loopback address", "err", err)
}
