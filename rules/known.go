package rules

import (
	"net/netip"
	"regexp"
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
	if s, ok := ParseShape(name); ok {
		return s.chain(f, c), true
	}
	return nftables.Chain{}, false
}

// shapeName matches the names of the chains of shapes that choose an endpoint.
var shapeName = regexp.MustCompile(`^(?:sticky-)?([a-z]+)-(?:(\d+)-of-)?(\d+)(?:-(\d+))?$`)

// ParseShape returns the shape whose chain has the name.
func ParseShape(name string) (Shape, bool) {
	for _, s := range []Shape{{Kind: ShapeReject}, {Kind: ShapeDrop}} {
		if s.ChainName() == name {
			return s, true
		}
	}
	parts := shapeName.FindStringSubmatch(name)
	if parts == nil {
		return Shape{}, false
	}
	number := func(text string) int {
		n, _ := strconv.Atoi(text) // 0 if it is too large, and then the name is another one
		return n
	}
	s := Shape{N: number(parts[3]), Locals: number(parts[2])}
	s.Timeout = time.Duration(number(parts[4])) * time.Second
	for s.Kind = ShapeCluster; s.Kind <= shapeAny; s.Kind++ {
		if s.Kind.String() == parts[1] && s.ChainName() == name && (s.Kind != shapeAny || s.Timeout > 0) {
			return s, true
		}
	}
	return Shape{}, false
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
