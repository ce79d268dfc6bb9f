package desired

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/nftproxy/nftproxy/rules/service"
)

// External says which addresses outside of the cluster Services may have. Whoever can write a Service can
// have the traffic to such an address (CVE-2020-8554).
type External struct {
	// NoExternalIPs leaves out all externalIPs; the feature gate AllowServiceExternalIPs is off.
	NoExternalIPs bool
	// Allowed are the ranges of external and load-balancer IPs. None stands for all addresses.
	Allowed []netip.Prefix
}

// restrict removes the addresses from svc that it may not have, and returns a problem for each.
func (e *Environment) restrict(svc *service.Service) (problems []string) {
	const externalIPs, ingress = "spec.externalIPs", "status.loadBalancer.ingress"
	if e.External.NoExternalIPs && len(svc.ExternalIPs) > 0 {
		svc.ExternalIPs = nil
		problems = append(problems, externalIPs+": the feature gate AllowServiceExternalIPs is off")
	}
	keep := func(field string, addrs []netip.Addr, refusal func(netip.Addr) string) (kept []netip.Addr) {
		for _, a := range addrs {
			if why := refusal(a); why != "" {
				problems = append(problems, fmt.Sprintf("%s: %s %s", field, a, why))
				continue
			}
			kept = append(kept, a)
		}
		return kept
	}
	svc.ExternalIPs = keep(externalIPs, svc.ExternalIPs, func(a netip.Addr) string {
		if i := within(a, e.Config.ServiceCIDRs); i >= 0 {
			return fmt.Sprintf("is an address for ClusterIPs, in the ServiceCIDR %s", e.Config.ServiceCIDRs[i])
		}
		return e.External.refusal(a)
	})
	svc.LoadBalancerIPs = keep(ingress, svc.LoadBalancerIPs, e.External.refusal)
	return problems
}

// refusal returns why an address must not be programmed, or "".
func (e External) refusal(a netip.Addr) string {
	if len(e.Allowed) == 0 || within(a, e.Allowed) >= 0 {
		return ""
	}
	return "is outside of --allowed-external-cidrs"
}

// within returns the index of the first prefix that contains the address, or -1.
func within(a netip.Addr, prefixes []netip.Prefix) int {
	return slices.IndexFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}
