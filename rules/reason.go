package rules

import (
	"fmt"
	"strings"

	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Reasons returns why a frontend does not lead to each endpoint of its port, in the order of the endpoints,
// and "" for those that it leads to. local says that the frontend leads to endpoints on this node only.
//
// The answers are the compiler's: they come from the functions with which it chooses endpoints. They are for
// people and cost more than the choice.
func Reasons(all []service.Endpoint, family service.Family, node service.Node, local bool) []string {
	s := selectFrom(all, family, node)
	alive := map[service.Backend]bool{} // those of s.all that terminate
	for i := range s.all {
		if s.all[i].Terminating {
			alive[s.all[i].Backend] = true
		}
	}
	usable := s.usable
	if local {
		usable = s.usableHere
	}
	reasons, seen := make([]string, len(all)), map[service.Backend]bool{}
	for i := range all {
		ep := &all[i]
		switch {
		case !s.has(ep):
			reasons[i] = "another IP family"
		case ep.Terminating && !alive[ep.Backend]:
			reasons[i] = "terminating, and a later pod has its address"
		case local && !s.here(ep):
			reasons[i] = "not on this node: " + onNode(ep)
		case ep.Drained:
			reasons[i] = "its weight is 0: it gets no new connections"
		case !usable(ep):
			reasons[i] = unusable(ep)
		case !local && !s.hinted(ep):
			reasons[i] = s.reserved(ep)
		case seen[ep.Backend]:
			reasons[i] = "duplicate: another EndpointSlice has it too"
		default:
			seen[ep.Backend] = true
		}
	}
	return reasons
}

// ReasonSlots is the reason of endpoints that are left out because a frontend has no more slots.
func ReasonSlots(local bool) string {
	most := nftables.MaxSlots
	if local {
		most = nftables.MaxLocalSlots
	}
	return fmt.Sprintf("no slot: a frontend has at most %d", most)
}

func onNode(ep *service.Endpoint) string {
	if ep.Node == "" {
		return "the EndpointSlice names no node"
	}
	return "it is on " + ep.Node
}

// unusable says which condition excludes an endpoint.
func unusable(ep *service.Endpoint) string {
	switch {
	case ep.Terminating && ep.Serving:
		return "terminating, and other endpoints are ready"
	case ep.Terminating:
		return "terminating, and not serving any more"
	}
	return "not ready: the readiness probe of its pod fails, or the pod has not started"
}

// reserved says for whom an endpoint is reserved by hints.
func (s *selection) reserved(ep *service.Endpoint) string {
	if s.hints == nodeHints {
		return "for other nodes by hints: " + strings.Join(ep.NodeHints, ", ")
	}
	return "for other zones by hints: " + strings.Join(ep.ZoneHints, ", ")
}
