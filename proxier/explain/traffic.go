package explain

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/nftproxy/nftproxy/proxier/conntrack"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Traffic is what the kernel knows of the connections through a frontend.
type Traffic struct {
	// Counted returns how many connections the rules have counted at an element, and false if they do not
	// count or Kernel.Element was not asked for it.
	Counted func(nftables.ElementID) (uint64, bool)
	// Open returns the connections through a frontend that are open now.
	Open func(service.Frontend) (map[service.Backend]conntrack.Open, error)
}

// NewTraffic returns the Traffic of the calling thread's network namespace. counted is that of the Kernel.
// Open ends when ctx does.
func NewTraffic(ctx context.Context, counted func(nftables.ElementID) (uint64, bool)) *Traffic {
	open := func(f service.Frontend) (map[service.Backend]conntrack.Open, error) {
		return conntrack.OpenAt(ctx, f)
	}
	return &Traffic{Counted: counted, Open: open}
}

// Open are the connections through the frontend that are open now.
type Open struct {
	conntrack.Open
	// Endpoints have at least one connection each, those with the most first. They can be endpoints that get
	// no new connection.
	Endpoints []OpenEndpoint `json:"endpoints,omitempty"`
}

// OpenEndpoint has the open connections to an endpoint.
type OpenEndpoint struct {
	Address netip.Addr `json:"address"`
	Port    uint16     `json:"port"`
	conntrack.Open
}

// traffic says how many connections the frontend had, and has now.
func (x *explainer) traffic() {
	if x.Traffic == nil {
		return
	}
	x.counted()
	found, err := x.Traffic.Open(x.frontend)
	if err != nil {
		x.report.add("open", "not known", err.Error())
		return
	}
	x.report.Open = openOf(found)
	x.report.add("open", fmt.Sprintf("%d connections", x.report.Open.Connections), x.report.Open.text())
}

// counted sums up the counters of the elements of the frontend.
func (x *explainer) counted() {
	services := nftables.FrontendElement(nftables.Services, x.frontend).ElementID
	total, ok := x.Traffic.Counted(services)
	if !ok {
		return
	}
	x.report.Connections = &total
	to := map[service.Backend]uint64{}
	for _, e := range x.Ruleset.Lookup().Frontend(x.frontend) {
		if n, ok := x.Traffic.Counted(e.ElementID); ok && e.ElementID != services {
			to[e.DataValues().Backend()] += n
		}
	}
	var list []string
	for i := range x.report.Endpoints {
		e := &x.report.Endpoints[i]
		if n, ok := to[backendOf(*e)]; ok {
			e.Connections = &n
			list = append(list, fmt.Sprintf("%s %d", backendOf(*e), n))
		}
	}
	since := "since the kernel has the element of the frontend"
	if len(list) > 0 {
		since = join(list) + "; each since the kernel has its element"
	}
	x.report.add("counted", fmt.Sprintf("%d connections", total), since)
}

func openOf(found map[service.Backend]conntrack.Open) *Open {
	open := &Open{}
	for backend, o := range found {
		open.Add(o)
		open.Endpoints = append(open.Endpoints, OpenEndpoint{backend.Addr(), backend.Port(), o})
	}
	slices.SortFunc(open.Endpoints, func(a, b OpenEndpoint) int {
		return cmp.Or(cmp.Compare(b.Connections, a.Connections), a.backend().Compare(b.backend()))
	})
	return open
}

func (e OpenEndpoint) backend() service.Backend { return netip.AddrPortFrom(e.Address, e.Port) }

// text lists the endpoints, and says what of the traffic is counted.
func (o *Open) text() string {
	if o.Connections == 0 {
		return ""
	}
	var list []string
	for _, e := range o.Endpoints {
		text := fmt.Sprintf("%s %d", e.backend(), e.Connections)
		if e.Counted > 0 {
			text += fmt.Sprintf(" (%d packets, %d bytes)", e.Packets, e.Bytes)
		}
		list = append(list, text)
	}
	const without = "because sysctl net.netfilter.nf_conntrack_acct was 0 when they began"
	switch not := o.Connections - o.Counted; {
	case o.Counted == 0:
		return join(list) + "; packets and bytes not counted, " + without
	case not > 0:
		return join(list) + fmt.Sprintf("; packets and bytes of %d not counted, %s", not, without)
	}
	return join(list)
}
