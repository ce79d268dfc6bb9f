package explain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nftproxy/nftproxy/proxier/state"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/interpreter"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// definition says how clients name the Service, and whether its port finds one in the EndpointSlices.
func (x *explainer) definition() {
	svc := x.svc.Service
	var ips []string
	for _, a := range svc.ClusterIPs {
		ips = append(ips, a.String())
	}
	x.report.add("dns", svc.Name.Name+"."+svc.Name.Namespace+".svc.CLUSTER-DOMAIN",
		"must resolve to "+join(ips)+"; try IP:port to leave DNS out")
	x.portLine()
	x.problems(x.svc)
}

// portLine compares the port with those in the EndpointSlices. Whoever made the slices has replaced the
// targetPort by its number, and kept the name of the Service's port.
func (x *explainer) portLine() {
	result := "port " + portText(x.port)
	var same, others []string
	endpoints := 0
	for _, p := range x.svc.SlicePorts {
		if p.Name == x.port.Name && p.Protocol == x.port.Protocol {
			same = append(same, fmt.Sprint(p.Port))
			endpoints += p.Endpoints
		} else {
			others = append(others, slicePortText(p))
		}
	}
	switch {
	case x.svc.Slices == 0:
		x.report.add("port", result, "no EndpointSlice belongs to the Service: its selector matches no pod")
	case len(same) > 0 && endpoints == 0:
		x.report.add("port", result, "the EndpointSlices have no endpoint: the selector matches no pod")
	case len(same) > 0:
		x.report.add("port", result, "its endpoints listen on "+join(same))
	case len(others) > 0:
		x.report.add("port", result, fmt.Sprintf("no EndpointSlice has a %s port with its name %q, "+
			"they have %s: compare name, protocol and targetPort with the ports of the pods",
			x.port.Protocol, x.port.Name, join(others)))
	default:
		x.report.add("port", result, "the EndpointSlices have no ports: "+
			"no pod has a port with the name that targetPort gives, or the slices have no endpoints")
	}
}

func slicePortText(p state.SlicePort) string {
	return strings.TrimSpace(fmt.Sprintf("%s %d/%s", p.Name, p.Port, p.Protocol))
}

// admitted says whether the source ranges of the frontend admit the client.
func (x *explainer) admitted() {
	for _, step := range x.outcomes[0].Steps.List() {
		if in, ok := step.Rule[0].(nftables.InSet); !ok || in.Set != nftables.Firewalled.String() {
			continue
		}
		switch {
		case strings.HasPrefix(step.Result, "no match"):
			if x.svc != nil {
				x.report.add("admitted", "yes", "the frontend has no source ranges")
			}
		case strings.Contains(step.Result, "no match"):
			x.report.add("admitted", "yes", x.client.addr.String()+" is in loadBalancerSourceRanges")
		default:
			x.report.add("admitted", "no",
				x.client.addr.String()+" is not in loadBalancerSourceRanges"+x.ranges())
		}
		return
	}
}

// ranges lists the sources that the frontend admits, to end a sentence with.
func (x *explainer) ranges() string {
	entry, _, known := x.Ruleset.Entry(x.frontend)
	var list []string
	for _, p := range entry.Sources {
		list = append(list, p.String())
	}
	switch {
	case !known:
		return ""
	case len(list) == 0:
		return ", which have none of this IP family"
	}
	return ": " + join(list)
}

// shape says which chain decides, and the traffic policy.
func (x *explainer) shape() {
	entry, _, _ := x.Ruleset.Entry(x.frontend)
	n, locals := len(slotsOf(entry.Backends)), len(slotsOf(entry.Locals))
	reason := fmt.Sprintf("%d endpoints to choose from", n)
	switch {
	case n+locals == 0:
		reason = "there is nothing to choose from"
	case n == 1:
		reason = "1 endpoint to choose from"
	}
	if locals > 0 {
		reason += fmt.Sprintf(", %d on this node", locals)
	}
	x.report.add("shape", "chain "+entry.ChainName(), reason)
	x.scheduler()
	field, local := "externalTrafficPolicy", x.svc.Service.ExternalLocal
	if x.kind == rules.KindClusterIP {
		field, local = "internalTrafficPolicy", x.svc.Service.InternalLocal
	}
	switch {
	case !local:
		x.report.add("policy", field+" Cluster", "endpoints on all nodes")
	case x.leadsHere():
		x.report.add("policy", field+" Local", "endpoints on this node only")
	default:
		x.report.add("policy", field+" Local", "but pods and this node reach all endpoints, "+
			"as if they had gone through the load balancer")
	}
}

// leadsHere reports whether the connection can go to endpoints on this node only.
func (x *explainer) leadsHere() bool {
	if x.kind == rules.KindClusterIP {
		return x.svc.Service.InternalLocal
	}
	if !x.svc.Service.ExternalLocal {
		return false
	}
	everywhere := []string{nftables.Endpoints.String(), nftables.StickyBackends.String()}
	for _, o := range x.outcomes {
		for _, step := range o.Steps.List() {
			dnat, ok := step.Rule[len(step.Rule)-1].(nftables.DNAT)
			if ok && slices.Contains(everywhere, dnat.Map) &&
				strings.Contains(step.Result, "to "+o.Endpoint.String()) {
				return false
			}
		}
	}
	return true
}

// source says which client the endpoints see.
func (x *explainer) source() {
	kept, masqueraded := x.split()
	var how string // of those that are masqueraded
	for _, step := range masqueraded.List() {
		for _, s := range step.Rule {
			switch s := s.(type) {
			case nftables.SetMark:
				if strings.Contains(step.Result, "marked") {
					how = x.whyMarked(step)
				}
			case nftables.InSet:
				if s.Set == nftables.Hairpin.String() && strings.Contains(step.Result, "masqueraded") {
					how = "the endpoint is the client itself, and would otherwise answer itself past the node"
				}
			}
		}
	}
	switch {
	case kept != nil:
		x.report.Source = "kept"
		x.report.add("source", "kept", "endpoints see "+x.client.addr.String())
		if masqueraded != nil {
			x.report.add("source", "masqueraded for some", how)
		}
	case masqueraded != nil:
		x.report.Source = "masqueraded"
		x.report.add("source", "masqueraded", how)
	}
}

// split returns the steps of an outcome that keeps the source and of one that does not.
func (x *explainer) split() (kept, masqueraded *interpreter.Step) {
	for _, o := range x.outcomes {
		switch {
		case o.Verdict != interpreter.Translated:
		case o.Masqueraded:
			masqueraded = o.Steps
		default:
			kept = o.Steps
		}
	}
	return kept, masqueraded
}

// whyMarked says why a rule marked the connection to be masqueraded.
func (x *explainer) whyMarked(step *interpreter.Step) string {
	rule := fmt.Sprintf("; rule %q in chain %s", step.Text(), step.Chain)
	switch {
	case len(step.Rule) == 1 && x.kind == rules.KindClusterIP:
		return "masqueradeAll is set" + rule
	case len(step.Rule) == 1:
		return "with externalTrafficPolicy Cluster the reply must come back through this node" + rule
	case x.kind == rules.KindClusterIP:
		return "the client is not recognised as a pod, and the reply must come back through this node" + rule
	}
	return "the client is this node" + rule
}

// affinity says which endpoint the client has.
func (x *explainer) affinity() {
	timeout := x.svc.Service.AffinityTimeout
	if timeout == 0 {
		why := "each connection chooses anew"
		if entry, _, _ := x.Ruleset.Entry(x.frontend); entry.Shape.Scheduler == service.SourceHash {
			why = "scheduler sh gives a client the same endpoint while the endpoints stay"
		}
		x.report.add("affinity", "none", why)
		return
	}
	lasts := fmt.Sprintf("sessionAffinity ClientIP for %s", timeout)
	client := x.outcomes[0].Remembered
	switch {
	case x.kernel == nil:
		x.report.add("affinity", "not known", lasts+"; the kernel, which remembers clients, was not read")
	case client == nil:
		x.report.add("affinity", "none", lasts+", but the connection reaches no endpoint")
	case client.Known:
		left, _ := x.kernel.Expires(client.ID)
		x.report.add("affinity", "endpoint "+x.outcomes[0].Endpoint.String(),
			fmt.Sprintf("%s; this client has it for another %s", lasts, left.Round(time.Second)))
	default:
		x.report.add("affinity", "new client", lasts+"; it will keep the endpoint that it gets")
	}
}

// sync says when the daemon last synced.
func (x *explainer) sync() {
	s := x.Wanted.Sync
	switch {
	case s == nil:
	case s.At.IsZero():
		x.report.add("sync", "none yet", errorText(s.Err))
	case s.Err != nil:
		x.report.add("sync", "failed", fmt.Sprintf("%v; the last one that succeeded was %s ago",
			s.Err, time.Since(s.At).Round(time.Millisecond)))
	default:
		x.report.add("sync", "succeeded", fmt.Sprintf("%s ago", time.Since(s.At).Round(time.Millisecond)))
	}
	x.objects()
}

// objects says how current the objects of the daemon are.
func (x *explainer) objects() {
	s := x.Wanted.Sync
	if s == nil || s.Heard.IsZero() {
		return
	}
	heard := fmt.Sprintf("the API server was heard %s ago", time.Since(s.Heard).Round(time.Second))
	if s.Unheard == "" {
		x.report.add("objects", "current", heard)
		return
	}
	x.doubt("objects", "may be old", heard+"; "+s.Unheard, "changes of Services and endpoints do not arrive")
}

// daemon says why no daemon was asked, and what is wanted instead of its answer.
func (x *explainer) daemon() {
	if x.Alone == nil {
		return
	}
	x.doubt("daemon", "not asked", x.Alone.Error(), "no nftproxy answers on this node")
	if x.Unread != nil {
		x.report.add("objects", "not read", "what is wanted is not known: "+x.Unread.Error())
		return
	}
	x.report.add("objects", "read now", "from the API server; they are what is wanted")
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// verdict says where the connection goes.
func (x *explainer) verdict() {
	var to []string
	for _, o := range x.outcomes {
		if o.Verdict == interpreter.Translated {
			to = append(to, o.Endpoint.String())
		}
	}
	switch last := x.decisive().Steps; {
	case len(to) > 0 && len(to) < len(x.outcomes):
		x.report.add("verdict", x.report.Verdict, fmt.Sprintf(
			"some of the connections, the others reach %s; %s%s", join(to), x.whyLost(last), x.but()))
	case len(to) == 0:
		x.report.add("verdict", x.report.Verdict, x.whyLost(last)+x.but())
	case len(to) == 1:
		x.report.add("verdict", x.report.Verdict, to[0]+x.but())
	default:
		x.report.add("verdict", x.report.Verdict, "one of "+join(to)+x.but())
	}
}

// whyLost says why a connection reaches no endpoint. The last step is the rule that decided.
func (x *explainer) whyLost(last *interpreter.Step) string {
	if x.report.Verdict == interpreter.Untouched.String() {
		return "no rule takes the connection; it goes where its address is routed"
	}
	rule := fmt.Sprintf("; rule %q in chain %s", last.Text(), last.Chain)
	switch {
	case last.Chain == (rules.Shape{Kind: rules.ShapeReject}).ChainName():
		return "no endpoint can take connections" + rule
	case last.Chain == "services":
		return "the client is not admitted" + rule
	case last.Chain == "no-such-port":
		return "the ClusterIP has no such port" + rule
	case last.Chain == "unclaimed":
		return "the address is in the range of ClusterIPs, and no Service that nftproxy programs has it" + rule
	case x.svc != nil:
		return "the traffic policy is Local, and no endpoint is on this node" + rule
	}
	return strings.TrimPrefix(rule, "; ")
}

// loopback answers a question about a nodePort on a loopback address.
func (x *explainer) loopback() {
	loopbacks, _ := x.Ruleset.Loopbacks()
	l, ok := loopbacks[x.frontend]
	x.report.Verdict = interpreter.Untouched.String()
	if !ok {
		x.report.add("verdict", x.report.Verdict, "loopback addresses serve nodePorts only if "+
			"nodePortAddresses has localhost, and TCP only")
		return
	}
	x.report.Service = l.Service.String()
	if len(l.Backends) == 0 {
		x.report.Verdict = verdictRefused
		x.report.add("verdict", verdictRefused, "no endpoint can take connections")
		return
	}
	x.report.Verdict, x.report.Source = verdictEndpoint, "masqueraded"
	var to []string
	for _, b := range l.Backends {
		x.report.Endpoints = append(x.report.Endpoints, Endpoint{Address: b.Addr().String(), Port: b.Port(),
			Source: "masqueraded"})
		to = append(to, b.String())
	}
	x.report.add("frontend", x.report.Frontend,
		"nodePort of Service "+l.Service.String()+
			" on a loopback address: nftproxy itself connects, without rules")
	x.report.add("verdict", verdictEndpoint, "one of "+join(to))
}
