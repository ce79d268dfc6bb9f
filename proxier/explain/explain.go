package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/nftproxy/nftproxy/proxier/desired"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/interpreter"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Explain answers a question from what is wanted and, unless kernel is nil, from what the kernel has: then the
// verdict is the kernel's.
func Explain(w *Wanted, q Question, kernel Kernel) (*Report, error) {
	t, err := parseTarget(q.Target)
	if err != nil {
		return nil, err
	}
	from, err := parseFrom(q.From)
	if err != nil {
		return nil, err
	}
	x := &explainer{Wanted: w, kernel: kernel, report: &Report{Target: q.Target, Endpoints: []Endpoint{}}}
	f, why, ok := w.resolve(t, from)
	if !ok {
		x.nothing(t, why)
		return x.report, nil
	}
	x.frontend, x.report.Frontend = f, address(f)
	if x.client, err = w.client(q.From, f); err != nil {
		return nil, err
	}
	x.report.Client = x.client.addr.String()
	x.claims(t)
	x.report.add("client", x.client.addr.String(), x.client.what+", "+x.client.why)
	if x.svc != nil {
		x.definition()
	}
	if f.Addr.IsLoopback() {
		x.loopback()
		return x.report, nil
	}
	return x.report, x.evaluate()
}

// explainer answers one question.
type explainer struct {
	*Wanted
	kernel Kernel
	report *Report

	frontend service.Frontend
	client   client
	svc      *desired.Inspection // has the frontend; nil: none has
	port     *service.Port
	kind     rules.Kind
	outcomes []interpreter.Outcome
}

// nothing answers a question about what has no frontend.
func (x *explainer) nothing(t target, why string) {
	x.report.Verdict = interpreter.Untouched.String()
	subject := "nodePort"
	if t.isService() {
		subject, x.report.Service = "service", t.name.String()
		if i := x.inspection(t.name); i != nil {
			x.problems(i)
		}
	}
	x.report.add(subject, x.report.Target, why)
	x.sync()
	x.daemon()
	x.report.add("verdict", x.report.Verdict, "nftproxy does not program it on this node"+x.but())
}

// claims says which Service has the frontend, and which others would like to have it.
func (x *explainer) claims(t target) {
	entry, owner, owned := x.Ruleset.Entry(x.frontend)
	if !owned {
		x.unowned()
		return
	}
	x.svc, x.report.Service = x.inspection(owner), owner.String()
	if x.svc != nil && x.svc.Service != nil {
		x.kind = entry.Kind
		x.port = portAt(x.svc.Service, x.frontend, x.kind)
	}
	if x.port == nil { // the Service has changed since it was compiled
		x.svc = nil
		x.report.add("frontend", x.report.Frontend, "of Service "+owner.String())
		return
	}
	x.report.add("frontend", x.report.Frontend,
		fmt.Sprintf("%s of Service %s, port %s", x.kind, owner, portText(x.port)))
	if others := x.others(); len(others) > 0 {
		x.report.add("also at", join(others), "")
	}
	for _, c := range x.Ruleset.Losers(x.frontend) {
		x.report.add("conflict", "Service "+c.Loser.String()+" does not have it", desired.Conflict(c).Message)
	}
	if t.isService() && t.name != owner {
		x.report.add("service", t.name.String(), "its frontend belongs to another Service, see above")
	}
}

// others returns the other frontends of the port.
func (x *explainer) others() (list []string) {
	svc, node := x.svc.Service, x.Environment.Node
	at := func(addrs []netip.Addr, port uint16) {
		for _, a := range addrs {
			f := service.Frontend{Addr: a, Protocol: x.port.Protocol, Port: port}
			if f != x.frontend && port != 0 {
				list = append(list, address(f))
			}
		}
	}
	at(slices.Concat(svc.ClusterIPs, svc.LoadBalancerIPs, svc.ExternalIPs), x.port.Port)
	at(node.NodePortAddrs, x.port.NodePort)
	return list
}

// unowned says why no Service has the frontend.
func (x *explainer) unowned() {
	why := "no Service has this address"
	if len(x.Services) > 0 {
		why = "no Service has this address and port on this node"
	}
	x.report.add("frontend", x.report.Frontend, why)
	for i := range x.Services {
		in := &x.Services[i]
		if in.Service != nil {
			x.report.add("service", in.Name.String(),
				"has ports "+portsOf(in.Service)+" at "+join(addressesOf(in)))
		}
		x.problems(in)
	}
}

// problems says what of a Service is left out. If the address of the question is, that is all that matters.
func (x *explainer) problems(i *desired.Inspection) {
	about := func(p string) bool {
		return x.frontend.Addr.IsValid() && slices.Contains(strings.Fields(p), x.frontend.Addr.String())
	}
	matter := slices.ContainsFunc(i.Problems, about)
	for _, p := range i.Problems {
		if !matter || about(p) {
			x.report.add("left out", "a part of "+i.Name.String(), p)
		}
	}
}

// addressesOf returns the addresses of a Service.
func addressesOf(i *desired.Inspection) (list []string) {
	s := i.Service
	for _, a := range slices.Concat(s.ClusterIPs, s.LoadBalancerIPs, s.ExternalIPs) {
		list = append(list, a.String())
	}
	return list
}

// join lists a few words, and says how many more there are.
func join(list []string) string {
	const most = 6
	if n := len(list) - most; n > 0 {
		return strings.Join(list[:most], ", ") + fmt.Sprintf(" and %d more", n)
	}
	return strings.Join(list, ", ")
}

// evaluate runs the packet through the rules, and explains what they did with it.
func (x *explainer) evaluate() error {
	var unread error
	if x.kernel != nil {
		x.outcomes, unread = interpreter.Run(x.kernel, x.local, x.packet())
	}
	if x.kernel == nil || unread != nil {
		var err error
		if x.outcomes, err = interpreter.Run(x.Ruleset.Lookup(), x.local, x.packet()); err != nil {
			return fmt.Errorf("evaluate the wanted rules: %w", err)
		}
	}
	x.recordRules(x.decisive())
	x.admitted()
	if x.svc != nil {
		x.shape()
		x.endpoints()
		x.source()
		x.affinity()
	}
	if err := x.compare(unread); err != nil {
		return err
	}
	x.traffic()
	x.sync()
	x.daemon()
	x.obstacles()
	x.verdict()
	return nil
}

// packet is the first packet of the connection.
func (x *explainer) packet() interpreter.Packet {
	return interpreter.Packet{Src: x.client.addr, Dst: x.frontend.Addr, Protocol: x.frontend.Protocol,
		Port: x.frontend.Port, Interface: x.client.iface}
}

// decisive returns the outcome that is the verdict: one that does not reach an endpoint, if there is any.
func (x *explainer) decisive() interpreter.Outcome {
	for _, o := range x.outcomes {
		if o.Verdict != interpreter.Translated {
			return o
		}
	}
	return x.outcomes[0]
}

// recordRules records an outcome with the rules that led to it.
func (x *explainer) recordRules(o interpreter.Outcome) {
	x.report.Verdict = o.Verdict.String()
	for _, step := range o.Steps.List() {
		x.report.Rules = append(x.report.Rules, Rule{step.Chain, step.Text(), step.Result})
	}
}

// reasons returns why each endpoint of the port is left out.
func (x *explainer) reasons() []string {
	local := x.leadsHere()
	reasons := rules.Reasons(x.port.Endpoints, service.FamilyOf(x.frontend.Addr), x.Environment.Node, local)
	slots := slotsOf(x.slots())
	for i, ep := range x.port.Endpoints {
		if reasons[i] == "" && slots[ep.Backend] == 0 {
			reasons[i] = rules.ReasonSlots(local)
		}
	}
	return reasons
}
