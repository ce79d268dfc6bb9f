package desired

import (
	"github.com/nftproxy/nftproxy/proxier/state"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Inspection is what is known about a Service, to explain what becomes of it.
type Inspection struct {
	Name     service.Name
	Service  *service.Service // with the endpoints in all conditions; nil: nothing is programmed
	Foreign  string           // why a Service that is in the cluster is not ours; "" otherwise
	Problems []string         // the parts that are left out

	SlicePorts []state.SlicePort // in its EndpointSlices
	Slices     int
	Zones      map[string]string // of the nodes of its endpoints, where known
}

// Inspect returns what is known about a Service. It needs a ruleset, and changes nothing.
func (b *Builder) Inspect(name service.Name) Inspection {
	i := Inspection{Name: name, Foreign: b.state.Foreign(name), Zones: map[string]string{}}
	i.Service, i.Problems = b.service(name)
	if i.Service != nil {
		compiled := rules.Compile(i.Service, b.environment.Node, b.ruleset.Slots, b.share(name.Namespace))
		i.Problems = append(i.Problems, compiled.Problems...)
		for _, p := range i.Service.Ports {
			for _, ep := range p.Endpoints {
				if _, known := i.Zones[ep.Node]; !known {
					i.Zones[ep.Node] = b.state.Zone(ep.Node)
				}
			}
		}
	}
	i.SlicePorts, i.Slices = b.state.SlicePorts(name)
	return i
}

// State returns the state that the ruleset is built from.
func (b *Builder) State() *state.State { return b.state }
