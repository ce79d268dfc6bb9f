package proof

import (
	"slices"

	"github.com/nftproxy/nftproxy/internal/proof/bytecode"
	"github.com/nftproxy/nftproxy/internal/proof/spec"
)

// pair is what nftproxy and kube-proxy do with a packet.
type pair struct {
	packet       bytecode.Packet
	facts        spec.Facts
	ours, theirs []spec.Outcome
}

func (d pair) same() bool {
	in := func(a, b []spec.Outcome) bool {
		return !slices.ContainsFunc(a, func(o spec.Outcome) bool { return !slices.Contains(b, o) })
	}
	return in(d.ours, d.theirs) && in(d.theirs, d.ours)
}

// difference returns the first documented difference that explains the pair, and "" if there is none.
func (d pair) difference() string {
	for _, known := range differences() {
		if !d.same() && known.explains(d) {
			return known.what
		}
	}
	return ""
}

// difference is a row of the table in docs/compatibility.md.
type difference struct {
	what     string // the beginning of the row
	explains func(pair) bool
}

// are reports whether all outcomes have the verdict.
func are(outcomes []spec.Outcome, v spec.Verdict) bool {
	return !slices.ContainsFunc(outcomes, func(o spec.Outcome) bool { return o.Verdict != v })
}

func differences() []difference {
	return []difference{
		{"TCP to a port without endpoints, or to an unknown port of a ClusterIP", func(d pair) bool {
			return are(d.ours, spec.Refused) && are(d.theirs, spec.Refused) && d.ours[0].Reset
		}},
		{"an address for ClusterIPs that the node has bound", func(d pair) bool {
			return (d.facts.ClusterIP || d.facts.ServiceCIDR) && d.facts.ToHost && d.packet.Interface == "" &&
				are(d.ours, spec.Untouched) && !are(d.theirs, spec.Translated)
		}},
		{"externalTrafficPolicy Local, and a client with an address of the node that counts as a pod's",
			func(d pair) bool {
				return d.facts.FromHost && d.facts.FromPod && are(d.ours, spec.Translated) &&
					are(d.theirs, spec.Translated) && slices.Equal(unseen(d.ours), unseen(d.theirs))
			}},
		{"loopback, multicast, link-local, broadcast and 0.0.0.0/8", func(d pair) bool {
			return !spec.Unicast(d.packet.Dst) || slices.ContainsFunc(d.theirs, func(o spec.Outcome) bool {
				return o.Verdict == spec.Translated && !spec.Unicast(o.Endpoint.Addr())
			})
		}},
		{"a Service claims the address and port at which the proxy dials the API server, or the port",
			func(d pair) bool { return d.facts.Reserved && are(d.ours, spec.Untouched) }},
		{"two Services claim one address and port",
			func(d pair) bool { return d.facts.Claims > 1 && !are(d.ours, spec.Untouched) }},
		{"externalIPs within a ServiceCIDR", func(d pair) bool {
			return d.facts.ServiceCIDR && are(d.theirs, spec.Translated)
		}},
		{"`--allowed-external-cidrs`", func(d pair) bool {
			return d.facts.NotAllowed && are(d.ours, spec.Untouched) && are(d.theirs, spec.Translated)
		}},
		{"loadBalancerSourceRanges that cannot be parsed", func(d pair) bool {
			return d.facts.Closed && are(d.ours, spec.Dropped) && are(d.theirs, spec.Translated)
		}},
		{"nodePortAddresses `primary`, and a Node without any address", func(d pair) bool {
			return d.facts.NodeUnknown && d.facts.ToHost && are(d.ours, spec.Untouched)
		}},
	}
}

// unseen returns the outcomes without what the endpoint sees, in order.
func unseen(outcomes []spec.Outcome) []spec.Outcome {
	out := slices.Clone(outcomes)
	for i := range out {
		out[i].Masqueraded = false
	}
	slices.SortFunc(out, func(a, b spec.Outcome) int { return a.Endpoint.Compare(b.Endpoint) })
	return slices.Compact(out)
}
