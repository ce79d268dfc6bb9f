package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/nftproxy/nftproxy/rules/service"
)

// Who a client can be besides an address.
const (
	fromPod     = "pod"
	fromNode    = "node"
	fromOutside = "outside"
)

// client is who connects.
type client struct {
	addr  netip.Addr
	iface string // on which its packets arrive; empty for the node itself
	what  string
	why   string // why it is taken for that
}

// exampleOutside returns an address of the ranges for benchmarks (RFC 2544, RFC 5180), which no client has.
func exampleOutside(f service.Family) netip.Addr {
	if f == service.IPv4 {
		return netip.MustParseAddr("198.18.0.1")
	}
	return netip.MustParseAddr("2001:2::1")
}

// parseFrom checks the client of a question.
func parseFrom(text string) (netip.Addr, error) {
	switch text {
	case "", fromPod, fromNode, fromOutside:
		return netip.Addr{}, nil
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return addr, fmt.Errorf("--from %s: want an IP address, pod, node or outside", text)
	}
	return addr.Unmap(), nil
}

// client returns who connects to a frontend.
func (w *Wanted) client(from string, f service.Frontend) (client, error) {
	addr, err := parseFrom(from)
	if err != nil {
		return client{}, err
	}
	family := service.FamilyOf(f.Addr)
	if addr.IsValid() {
		if service.FamilyOf(addr) != family {
			return client{}, fmt.Errorf("--from %s: is not of the family of %s", addr, f.Addr)
		}
		return w.clientAt(addr), nil
	}
	switch from {
	case fromNode:
		return w.node(f), nil
	case fromOutside:
		return client{exampleOutside(family), "eth0", "a client outside",
			"an example; --from IP asks for another one"}, nil
	}
	return w.pod(family), nil
}

// node is the node itself. The kernel uses an address of the node as the source of connections to it.
func (w *Wanted) node(f service.Frontend) client {
	c := client{what: "this node", why: "its packets pass the hook output"}
	if w.local(f.Addr) {
		c.addr = f.Addr
		return c
	}
	for _, a := range append(slices.Clone(w.Environment.Node.Addrs), w.HostAddrs...) {
		if service.FamilyOf(a) == service.FamilyOf(f.Addr) {
			c.addr = a
			return c
		}
	}
	c.addr = exampleOutside(service.FamilyOf(f.Addr))
	c.why = "an example: the node has no address of the family"
	return c
}

// pod is any pod of the cluster that connects through this node.
func (w *Wanted) pod(f service.Family) client {
	pods := w.Environment.Config.PodTraffic
	if pods.Interface != "" {
		return client{exampleOutside(f).Next(), interfaceOf(pods.Interface), "a pod on this node",
			"pods are recognised by the interface " + pods.Interface}
	}
	for _, p := range pods.CIDRs {
		if service.FamilyOf(p.Addr()) != f {
			continue
		}
		for a := p.Masked().Addr().Next().Next(); p.Contains(a); a = a.Next() {
			if !w.local(a) && !w.endpoint(a) {
				return client{a, "pod0", "a pod", fmt.Sprintf("an example in the pod range %s", p)}
			}
		}
	}
	return client{exampleOutside(f), "pod0", "a pod",
		"no pod range of the family is configured, so pods are not recognised (--cluster-cidr)"}
}

// clientAt is the client with an address.
func (w *Wanted) clientAt(a netip.Addr) client {
	if w.local(a) {
		return client{addr: a, what: "this node", why: "it has the address"}
	}
	pods := w.Environment.Config.PodTraffic
	for _, p := range pods.CIDRs {
		if p.Contains(a) {
			return client{a, "pod0", "a pod", fmt.Sprintf("its address is in the pod range %s", p)}
		}
	}
	if pods.Interface == "" {
		return client{a, "eth0", "a client outside", "its address is in no pod range"}
	}
	if w.endpointHere(a) {
		return client{a, interfaceOf(pods.Interface), "a pod on this node", "it is an endpoint on this node"}
	}
	return client{a, "eth0", "a client outside", "pods are recognised by the interface " + pods.Interface +
		", and no endpoint on this node has the address"}
}

// interfaceOf returns the name of an interface that a name with an optional * matches.
func interfaceOf(name string) string {
	if prefix, ok := strings.CutSuffix(name, "*"); ok {
		return prefix + "0"
	}
	return name
}

// local reports whether an address is one of the node.
func (w *Wanted) local(a netip.Addr) bool { return a.IsLoopback() || slices.Contains(w.HostAddrs, a) }

// endpoint reports whether an address is an endpoint of the Services of the question.
func (w *Wanted) endpoint(a netip.Addr) bool {
	return w.anyEndpoint(func(e service.Endpoint) bool { return e.Backend.Addr() == a })
}

func (w *Wanted) endpointHere(a netip.Addr) bool {
	node := w.Environment.Node.Name
	return w.anyEndpoint(func(e service.Endpoint) bool { return e.Backend.Addr() == a && e.Node == node })
}

func (w *Wanted) anyEndpoint(is func(service.Endpoint) bool) bool {
	for _, i := range w.Services {
		if i.Service == nil {
			continue
		}
		for _, p := range i.Service.Ports {
			if slices.ContainsFunc(p.Endpoints, is) {
				return true
			}
		}
	}
	return false
}
