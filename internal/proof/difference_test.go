package proof

import (
	"slices"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/nftproxy/nftproxy/internal/proof/bytecode"
	"github.com/nftproxy/nftproxy/internal/proof/spec"
)

// pair is what nftproxy and kube-proxy do with a packet.
type pair struct {
	packet       bytecode.Packet
	cluster      *spec.Cluster
	facts        spec.Facts
	ours, theirs []spec.Outcome
}

// difference is a row of the table in docs/compatibility.md.
type difference struct {
	what     string          // the beginning of the row
	explains func(pair) bool // nil: kube-proxy has no tables at all
}

// Rows of the cases for which kube-proxy has no tables.
const (
	refusedObject = "an object that the API server refuses, such as one with a port above 65535"
	noSuchName    = "`detectLocal`"
	otherMode     = "`mode`"
	noPodRange    = "detectLocalMode NodeCIDR, and a Node without a range of pods"
)

// withoutTables returns the cases for which kube-proxy programs nothing, with the difference.
func withoutTables() map[string]string {
	return map[string]string{
		"bad-objects":                     refusedObject,
		"masquerade-interface-impossible": noSuchName,
		"masquerade-node-cidr-unknown":    noPodRange,
		"scheduler-of-ipvs":               otherMode,
	}
}

func differences() []difference {
	return []difference{
		{refusedObject, nil},
		{noSuchName, nil},
		{noPodRange, nil},
		{otherMode, nil},
		{"TCP to a port without endpoints, or to an unknown port of a ClusterIP", pair.icmp},
		{"an address for ClusterIPs that the node has bound", pair.bound},
		{"externalTrafficPolicy Local, and a client with an address of the node that counts as a pod's",
			pair.keepsSource},
		{"loopback, multicast, link-local, broadcast and 0.0.0.0/8", pair.noDestination},
		{"a Service claims the address and port at which the proxy dials the API server, or the port",
			pair.reserved},
		{"two Services claim one address and port", pair.conflict},
		{"externalIPs within a ServiceCIDR", pair.clusterIPAsExternal},
		{"`--allowed-external-cidrs`", pair.notAllowed},
		{"loadBalancerSourceRanges that cannot be parsed", pair.unreadable},
		{"nodePortAddresses `primary`, and a Node without any address", pair.everyAddress},
		{"how connections are distributed", pair.weighted},
	}
}

// difference returns the first difference that explains the pair, and "" if there is none.
func (d pair) difference() string {
	for _, known := range differences() {
		own := d // explains may change it
		own.theirs = slices.Clone(d.theirs)
		if known.explains != nil && known.explains(own) {
			return known.what
		}
	}
	return ""
}

func (d pair) same() bool {
	in := func(a, b []spec.Outcome) bool {
		return !slices.ContainsFunc(a, func(o spec.Outcome) bool { return !slices.Contains(b, o) })
	}
	return in(d.ours, d.theirs) && in(d.theirs, d.ours)
}

// are reports whether all outcomes have the verdict.
func are(outcomes []spec.Outcome, v spec.Verdict) bool {
	return !slices.ContainsFunc(outcomes, func(o spec.Outcome) bool { return o.Verdict != v })
}

// icmp: the pair is the same but for the way in which TCP is refused.
func (d pair) icmp() bool {
	return d.packet.Protocol == unix.IPPROTO_TCP && are(d.ours, spec.Refused) && are(d.theirs, spec.Refused)
}

// bound: kube-proxy refuses and drops in the hook output as well, whatever address the node has.
func (d pair) bound() bool {
	return (d.facts.ClusterIP || d.facts.ServiceCIDR) && d.facts.ToHost && d.packet.Interface == "" &&
		are(d.ours, spec.Untouched) && (are(d.theirs, spec.Refused) || are(d.theirs, spec.Dropped))
}

// keepsSource: kube-proxy asks first whether the source is a pod, and then whether it is the node.
func (d pair) keepsSource() bool {
	for i := range d.theirs {
		d.theirs[i].Masqueraded = d.theirs[i].Verdict == spec.Translated
	}
	return d.facts.FromHost && d.facts.FromPod && d.same()
}

// noDestination: without such endpoints the pair is the same, or the destination is such an address itself.
func (d pair) noDestination() bool {
	if !spec.Unicast(d.packet.Dst) {
		return are(d.ours, spec.Untouched) && are(d.theirs, spec.Translated)
	}
	d.theirs = slices.DeleteFunc(d.theirs, func(o spec.Outcome) bool {
		return o.Verdict == spec.Translated && !spec.Unicast(o.Endpoint.Addr())
	})
	return d.same()
}

func (d pair) reserved() bool { return d.facts.Reserved && are(d.ours, spec.Untouched) }

// conflict: kube-proxy does what another one of the Services wants.
func (d pair) conflict() bool { return d.facts.Claims > 1 && !are(d.ours, spec.Untouched) }

// clusterIPAsExternal: a Service has an address for ClusterIPs as its external IP.
func (d pair) clusterIPAsExternal() bool {
	external := slices.ContainsFunc(d.cluster.Objects, func(o any) bool {
		s, ok := o.(*corev1.Service)
		return ok && slices.Contains(s.Spec.ExternalIPs, d.packet.Dst.String())
	})
	return d.facts.ServiceCIDR && external && are(d.theirs, spec.Translated)
}

func (d pair) notAllowed() bool {
	return d.facts.NotAllowed && are(d.ours, spec.Untouched) && are(d.theirs, spec.Translated)
}

func (d pair) unreadable() bool {
	return d.facts.Closed && are(d.ours, spec.Dropped) && are(d.theirs, spec.Translated)
}

func (d pair) everyAddress() bool {
	return d.facts.NodeUnknown && d.facts.ToHost && are(d.ours, spec.Untouched) && are(d.theirs, spec.Translated)
}

// weighted: the Service has weights, and endpoints of the weight 0 are among those of kube-proxy.
func (d pair) weighted() bool {
	annotated := slices.ContainsFunc(d.cluster.Objects, func(o any) bool {
		s, ok := o.(*corev1.Service)
		return ok && s.Namespace+"/"+s.Name == d.facts.Owner && s.Annotations["nftproxy.io/weights"] != ""
	})
	fewer := !slices.ContainsFunc(d.ours, func(o spec.Outcome) bool { return !slices.Contains(d.theirs, o) })
	return annotated && are(d.theirs, spec.Translated) && (fewer || are(d.ours, spec.Refused))
}
