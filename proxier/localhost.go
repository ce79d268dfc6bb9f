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
	for _, c := range conflicts {
		problem := desired.Conflict(c)
		r.events.reportService(problem.Service, problem.Reason, problem.Message)
	}
	ports := make(map[netip.AddrPort]localhost.NodePort, len(loopbacks))
	for f, l := range loopbacks {
		ports[netip.AddrPortFrom(f.Addr, f.Port)] = localhost.NodePort{
			Service: l.Service, Backends: l.Backends, Affinity: l.Affinity}
	}
	r.reportLocalhost(r.loopback.Sync(ports))
}

// reportLocalhost reports nodePorts on loopback addresses that could not be opened.
func (r *reconciler) reportLocalhost(errs []*localhost.ListenError) {
	r.unserved = len(errs) > 0
	failed := map[service.Family]int{}
	for _, err := range errs {
		failed[service.FamilyOf(err.Addr.Addr())]++
		r.events.reportService(err.Service, reasonLocalhost, err.Error())
	}
	for _, f := range r.builder.Environment().Config.Families {
		r.metrics.LocalhostNodePorts(f, r.loopback.Listeners(f), failed[f])
	}
}

// localhostFailed logs a connection to a nodePort on a loopback address that failed. The client sees a reset.
func localhostFailed(err error) {
	klog.V(4).InfoS("Failed to serve connection to nodePort on loopback address", "err", err)
}
