package rules

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// KnownChain returns the chain of that name as nftproxy writes it with a configuration, whether a frontend
// needs it or not. It returns false for a name that nftproxy gives to no chain.
func KnownChain(c Config, f service.Family, name string) (nftables.Chain, bool) {
	for _, chain := range baseChains(f, c) {
		if chain.Name == name {
			return chain, true
		}
	}
	if s, ok := parseShape(name); ok {
		s.family = f
		return s.chain(c), true
	}
	return nftables.Chain{}, false
}

// shapeName matches the names of the chains of shapes that choose an endpoint.
var shapeName = regexp.MustCompile(`^(?:(sticky|rr|mh|sh)-)?([a-z]+)-(?:(\d+)-of-)?(\d+)(?:-(.+))?$`)

// ParseShape returns the shape whose chain has the name.
func ParseShape(name string) (Shape, bool) {
	s, ok := parseShape(name)
	return s.shape, ok
}

// parseShape is ParseShape with the owner of the chain, and without its family.
func parseShape(name string) (tableShape, bool) {
	for _, s := range []Shape{{Kind: ShapeReject}, {Kind: ShapeDrop}} {
		if s.ChainName() == name {
			return tableShape{shape: s}, true
		}
	}
	for k := ShapeCluster; k <= shapeAny; k++ {
		if s := turnPart(k); s.ChainName() == name {
			return tableShape{shape: s}, true
		}
	}
	parts := shapeName.FindStringSubmatch(name)
	if parts == nil {
		return tableShape{}, false
	}
	number := func(text string) int {
		n, _ := strconv.Atoi(text) // 0 if it is too large, and then the name is another one
		return n
	}
	s := tableShape{shape: Shape{N: number(parts[4]), Locals: number(parts[3])}}
	if i := slices.IndexFunc(service.Schedulers(), func(s service.Scheduler) bool {
		return s.String() == parts[1]
	}); i >= 0 {
		s.shape.Scheduler = service.Schedulers()[i]
	}
	if s.shape.Scheduler == service.RoundRobin {
		s.owner, _ = parseOwner(parts[5]) // none if it is invalid, and then the name is another one
	} else {
		s.shape.Timeout = time.Duration(number(parts[5])) * time.Second
	}
	for k := ShapeCluster; k <= shapeAny; k++ {
		s.shape.Kind = k
		ownerless := s.shape.Scheduler == service.RoundRobin && s.owner == service.Frontend{}
		if k.String() == parts[2] && s.chainName() == name && !ownerless &&
			(k != shapeAny || s.shape.Timeout > 0) {
			return s, true
		}
	}
	return tableShape{}, false
}

// Variants returns the configuration and others with which nftproxy may have written the rules in the kernel,
// for a reader who does not know. They differ in the mark and in how pods are recognised, except by an
// interface of another name.
func (c Config) Variants() []Config {
	all := []Config{c}
	byAddress := PodTraffic{CIDRs: []netip.Prefix{
		netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}}
	for bit := range 32 {
		for _, everything := range []bool{false, true} {
			for _, pods := range []PodTraffic{c.PodTraffic, byAddress, {}} {
				v := c
				v.MasqueradeMark, v.MasqueradeAll, v.PodTraffic = 1<<bit, everything, pods
				all = append(all, v)
			}
		}
	}
	return all
}
