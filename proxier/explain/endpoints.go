package explain

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/nftproxy/nftproxy/rules/interpreter"
	"github.com/nftproxy/nftproxy/rules/service"
)

// maxLines bounds the lines for endpoints; JSON has all of them.
const maxLines = 20

// endpoints lists the endpoints that the connection can go to, as the rules have them, and those that are
// left out.
func (x *explainer) endpoints() {
	known := map[service.Backend]service.Endpoint{}
	reasons := x.reasons()
	for i, ep := range x.port.Endpoints {
		if _, twice := known[ep.Backend]; !twice || reasons[i] == "" {
			known[ep.Backend] = ep
		}
	}
	slots := x.slots()
	has := slotsOf(slots)
	reached := map[service.Backend]bool{}
	for _, o := range x.outcomes {
		if o.Verdict != interpreter.Translated {
			continue
		}
		reached[o.Endpoint] = true
		ep, ok := known[o.Endpoint]
		ep.Backend = o.Endpoint
		e := x.endpoint(ep)
		e.Source = sourceOf(o)
		if len(has) < len(slots) {
			e.Slots, e.OfSlots = has[o.Endpoint], len(slots)
		}
		if !ok {
			e.Reason = "the kernel has it, and no EndpointSlice does"
		}
		x.report.Endpoints = append(x.report.Endpoints, e)
	}
	for i, ep := range x.port.Endpoints {
		if reasons[i] == "" || service.FamilyOf(ep.Backend.Addr()) != service.FamilyOf(x.frontend.Addr) {
			continue
		}
		e := x.endpoint(ep)
		e.Reason = reasons[i]
		x.report.LeftOut = append(x.report.LeftOut, e)
	}
	x.lines("endpoint", x.report.Endpoints)
	x.lines("left out", x.report.LeftOut)
}

func sourceOf(o interpreter.Outcome) string {
	if o.Masqueraded {
		return "masqueraded"
	}
	return "kept"
}

func (x *explainer) endpoint(ep service.Endpoint) Endpoint {
	return Endpoint{
		Address: ep.Backend.Addr().String(), Port: ep.Backend.Port(), Node: ep.Node,
		Zone:  x.svc.Zones[ep.Node],
		Ready: &ep.Ready, Serving: &ep.Serving, Terminating: &ep.Terminating,
		Hints:  strings.Join(slices.Concat(ep.NodeHints, ep.ZoneHints), ", "),
		Itself: ep.Backend.Addr() == x.client.addr,
	}
}

// lines adds a line for each endpoint.
func (x *explainer) lines(subject string, endpoints []Endpoint) {
	for i, e := range endpoints {
		if i == maxLines {
			x.report.add(subject, fmt.Sprintf("%d more", len(endpoints)-i), "-o json lists all")
			return
		}
		about := e.conditions() + " on " + cmp.Or(e.Node, "no node")
		if e.Node == x.Environment.Node.Name {
			about += ", this node"
		}
		if e.Zone != "" {
			about += ", in " + e.Zone
		}
		if e.Hints != "" {
			about += ", hints for " + e.Hints
		}
		if e.OfSlots > 0 {
			about += fmt.Sprintf(", %d of %d slots", e.Slots, e.OfSlots)
		}
		if e.Itself {
			about += ", the client itself"
		}
		if e.Reason != "" {
			about = e.Reason + " (" + about + ")"
		}
		x.report.add(subject, service.Backend(backendOf(e)).String(), about)
	}
}

// conditions lists the conditions of an endpoint.
func (e Endpoint) conditions() string {
	var list []string
	for _, c := range []struct {
		name string
		is   *bool
	}{{"ready", e.Ready}, {"serving", e.Serving}, {"terminating", e.Terminating}} {
		if c.is == nil {
			return "conditions not known,"
		}
		if *c.is {
			list = append(list, c.name)
		}
	}
	if len(list) == 0 {
		return "neither ready nor serving"
	}
	return strings.Join(list, ", ")
}
