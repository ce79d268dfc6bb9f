package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nftproxy/nftproxy/proxier/desired"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Wanted is what a node wants, as far as one question needs it. It shares nothing that changes, so that
// another goroutine can use it.
type Wanted struct {
	Ruleset     *rules.Ruleset // with the Services of the question only
	Environment desired.Environment
	HostAddrs   []netip.Addr
	Services    []desired.Inspection // the one that the question names is the first
	Sync        *Sync                // nil: no daemon was asked
	Traffic     *Traffic             // nil: the kernel was not asked
	Host        *Host                // nil: not read
	Alone       error                // why no daemon was asked that should run; nil: one was, or none should
	Unread      error                // why the objects were not read from the API server; then nothing is wanted
}

// Sync is the last sync of the daemon, and how current its objects are.
type Sync struct {
	At  time.Time // of the last one that succeeded; zero: none has
	Err error     // of the last one; nil: it succeeded
	// Heard is when the API server was last heard about every resource. It is zero if objects come from
	// manifests. Unheard says why objects may be out of date; "": they are not.
	Heard   time.Time
	Unheard string
}

// maxInspected bounds the Services that are inspected, if many share an address.
const maxInspected = 8

// Collect gathers from a Builder, which has a ruleset, what the question needs. Only a question about an
// address costs more with more Services: it looks for those that have it.
func Collect(b *desired.Builder, hostAddrs []netip.Addr, q Question) (*Wanted, error) {
	t, err := parseTarget(q.Target)
	if err != nil {
		return nil, err
	}
	from, err := parseFrom(q.From)
	if err != nil {
		return nil, err
	}
	w := &Wanted{Environment: b.Environment(), HostAddrs: hostAddrs}
	addr, port, nodePort := t.addr, t.port, uint16(0)
	if t.isService() {
		w.Services = append(w.Services, b.Inspect(t.name))
		if f, _, ok := w.resolve(t, from); ok {
			addr, port = f.Addr, f.Port
		}
	}
	if !t.isService() && (!t.addr.IsValid() || w.local(t.addr)) {
		nodePort = t.port
	}
	var names []service.Name
	if addr.IsValid() || nodePort != 0 {
		names = b.State().Claiming(addr, nodePort)
	}
	if t.isService() && !slices.Contains(names, t.name) {
		names = append(names, t.name)
	}
	for _, name := range names {
		if name != t.name && (len(w.Services) < maxInspected || b.Ruleset().Claims(name, addr, port)) {
			w.Services = append(w.Services, b.Inspect(name))
		}
	}
	w.Ruleset = b.Ruleset().Subset(names...)
	return w, nil
}

// portAt returns the port of the Service that has a frontend of a kind.
func portAt(svc *service.Service, f service.Frontend, kind rules.Kind) *service.Port {
	for i := range svc.Ports {
		p := &svc.Ports[i]
		number := p.Port
		if kind == rules.KindNodePort {
			number = p.NodePort
		}
		if p.Protocol == f.Protocol && number == f.Port {
			return p
		}
	}
	return nil
}

// resolve returns the frontend that a target means, or why there is none. It prefers the family of the client.
func (w *Wanted) resolve(t target, from netip.Addr) (f service.Frontend, why string, ok bool) {
	if t.addr.IsValid() {
		return service.Frontend{Addr: t.addr, Protocol: t.protocol, Port: t.port}, "", true
	}
	addrs, port, protocol := w.Environment.Node.NodePortAddrs, t.port, t.protocol
	if t.isService() {
		i := w.inspection(t.name)
		if i == nil || i.Service == nil {
			return f, w.whyNothing(i), false
		}
		p := portNamed(i.Service, t)
		if p == nil {
			return f, "it has no such port; it has " + portsOf(i.Service), false
		}
		addrs, port, protocol = i.Service.ClusterIPs, p.Port, p.Protocol
		if strconv.Itoa(int(p.NodePort)) == t.portName && p.Port != p.NodePort {
			addrs, port = w.Environment.Node.NodePortAddrs, p.NodePort
		}
	}
	if len(addrs) == 0 {
		return f, "this node serves nodePorts on no address: see nodePortAddresses", false
	}
	f = service.Frontend{Addr: addrs[0], Protocol: protocol, Port: port}
	for _, a := range addrs {
		if from.IsValid() && service.FamilyOf(a) == service.FamilyOf(from) {
			f.Addr = a
			break
		}
	}
	return f, "", true
}

// whyNothing says why nothing of a Service is programmed.
func (w *Wanted) whyNothing(i *desired.Inspection) string {
	switch {
	case i == nil:
		return "it is not known"
	case i.Foreign != "":
		return i.Foreign
	case len(i.Problems) > 0:
		return "nothing of it can be programmed"
	case w.Sync != nil && !w.Sync.Heard.IsZero(): // the API server leaves out those that are not for nftproxy
		return "there is no Service of that name, or it is headless, or the label " +
			"service.kubernetes.io/service-proxy-name gives it to another proxy"
	}
	return "there is no Service of that name"
}

// portNamed returns the port that a target means: by name, by number, by nodePort, or the first one.
func portNamed(svc *service.Service, t target) *service.Port {
	for i := range svc.Ports {
		p := &svc.Ports[i]
		named := t.portName == "" || p.Name == t.portName || strconv.Itoa(int(p.Port)) == t.portName ||
			p.NodePort != 0 && strconv.Itoa(int(p.NodePort)) == t.portName
		if named && (t.protocol == 0 || p.Protocol == t.protocol) {
			return p
		}
	}
	return nil
}

// portsOf lists the ports of a Service: http 80/tcp, dns 53/udp.
func portsOf(svc *service.Service) string {
	var list []string
	for i := range svc.Ports {
		list = append(list, portText(&svc.Ports[i]))
	}
	return strings.Join(list, ", ")
}

func portText(p *service.Port) string {
	return strings.TrimSpace(fmt.Sprintf("%s %d/%s", p.Name, p.Port, p.Protocol))
}

// inspection returns what is known about a Service.
func (w *Wanted) inspection(name service.Name) *desired.Inspection {
	i := slices.IndexFunc(w.Services, func(i desired.Inspection) bool { return i.Name == name })
	if i < 0 {
		return nil
	}
	return &w.Services[i]
}
