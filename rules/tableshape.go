package rules

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// tableShape is a shape with a chain in one of the tables.
type tableShape struct {
	family service.Family
	shape  Shape
	owner  service.Frontend // the only frontend that has the chain; none: frontends share it
}

func (e *Entry) tableShape() tableShape {
	s := tableShape{family: service.FamilyOf(e.Frontend.Addr), shape: e.Shape}
	if e.Shape.Scheduler == service.RoundRobin { // its parts are shared
		s.owner = e.Frontend
	}
	return s
}

// ChainName returns the name of the chain that chooses the endpoint.
func (e *Entry) ChainName() string { return e.tableShape().chainName() }

// tableShapes returns the shapes whose chains the entry needs.
func (e *Entry) tableShapes() (out []tableShape) {
	out = append(out, e.tableShape())
	for _, s := range e.Shape.parts()[1:] {
		out = append(out, tableShape{family: service.FamilyOf(e.Frontend.Addr), shape: s})
	}
	return out
}

// chainName returns the name of the chain. That of a single frontend has the frontend in it:
// rr-cluster-3-10.96.0.10-tcp-80. nft allows no colon in a name, so an IPv6 address has underscores.
func (s tableShape) chainName() string {
	name := s.shape.ChainName()
	if s.owner == (service.Frontend{}) {
		return name
	}
	addr := strings.ReplaceAll(s.owner.Addr.String(), ":", "_")
	return fmt.Sprintf("%s-%s-%s-%d", name, addr, s.owner.Protocol, s.owner.Port)
}

// parseOwner returns the frontend in the name of a chain.
func parseOwner(text string) (f service.Frontend, ok bool) {
	parts := strings.Split(text, "-")
	if len(parts) != 3 {
		return f, false
	}
	addr, err := netip.ParseAddr(strings.ReplaceAll(parts[0], "_", ":"))
	port, portErr := strconv.ParseUint(parts[2], 10, 16)
	f = service.Frontend{Addr: addr, Port: uint16(port)}
	for _, p := range service.Protocols() {
		if p.String() == parts[1] {
			f.Protocol = p
		}
	}
	return f, err == nil && portErr == nil
}

// chain returns the chain of the shape.
func (s tableShape) chain(c Config) nftables.Chain {
	chain := s.shape.chain(s.family, c)
	chain.Name = s.chainName()
	return chain
}

func (s tableShape) compare(t tableShape) int {
	return cmp.Or(cmp.Compare(s.family, t.family), cmp.Compare(s.chainName(), t.chainName()))
}
