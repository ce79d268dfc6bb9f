package explain

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/nftproxy/nftproxy/proxier/probe"
	"github.com/nftproxy/nftproxy/rules/service"
)

// SendProbe sends a probe to the frontend of the answer, from this node and in the network namespace of the
// calling thread, and adds what came of it as a line before the verdict. traced says that the way of the
// probe is traced as well.
func (r *Report) SendProbe(ctx context.Context, q Question, traced bool) {
	to, ok := r.frontend()
	if !ok {
		r.addBeforeVerdict("probe", "not sent", "there is no address to send it to")
		return
	}
	result, err := probe.Send(ctx, to)
	if err != nil {
		r.addBeforeVerdict("probe", "not sent", err.Error())
		return
	}
	r.Probe = result
	words := []string{probeWay(result)}
	same := q.From == fromNode || r.Client == result.Source.Addr().String()
	if !same {
		words = append(words, "it is from this node, and may differ for "+r.Client)
	}
	switch c := r.contradiction(to, same); {
	case c != "" && traced:
		words = append(words, c)
	case c != "":
		words = append(words, c+", try --live 10s")
	default:
		words = append(words, usual(result, to)...)
	}
	r.addBeforeVerdict("probe", probeResult(result), strings.Join(words, "; "))
}

// ProbeSource returns the address from which this node connects to the frontend, if the question is about the
// node and the answer took another address of it as an example. Then the rules may say something else.
func (r *Report) ProbeSource(q Question) (netip.Addr, bool) {
	to, ok := r.frontend()
	if !ok || q.From != fromNode || to.Addr.IsLoopback() {
		return netip.Addr{}, false
	}
	from, err := probe.Source(to.Addr)
	return from, err == nil && from.String() != r.Client
}

// frontend returns the frontend of the answer.
func (r *Report) frontend() (service.Frontend, bool) {
	text, protocol := cutProtocol(r.Frontend)
	at, err := netip.ParseAddrPort(text)
	return service.Frontend{Addr: at.Addr(), Protocol: protocol, Port: at.Port()}, err == nil && protocol != 0
}

// addBeforeVerdict adds a decision before the last one, the verdict.
func (r *Report) addBeforeVerdict(subject, result, reason string) {
	r.Decisions = slices.Insert(r.Decisions, max(len(r.Decisions)-1, 0), Decision{subject, result, reason})
}

// probeResult says what came back.
func probeResult(p *probe.Result) string {
	text := p.Result
	if p.Result == probe.Nothing {
		return "nothing came back within " + probe.Wait.String()
	}
	if p.By != "" {
		text += " by " + p.By
	}
	return text + " in " + p.Took
}

// probeWay says what was sent and where it went.
func probeWay(p *probe.Result) string {
	text := p.Sent
	if p.Source.IsValid() { // otherwise there was no route, and so no source address
		text += " from " + p.Source.String()
	}
	if p.Again > 0 {
		text += fmt.Sprintf(", sent %d more times,", p.Again)
	}
	switch {
	case p.Endpoint != "":
		return text + " went to " + p.Endpoint
	case p.Unknown != "":
		return text + " went to an endpoint that is not known: " + p.Unknown
	}
	return text + " did not leave this node: connection tracking has no flow of it"
}

// usual explains what may look like a failure of the Service and is none of the rules.
func usual(p *probe.Result, to service.Frontend) []string {
	switch {
	case p.Endpoint == "" || p.Endpoint == netip.AddrPortFrom(to.Addr, to.Port).String():
	case p.Result == probe.Nothing && to.Protocol == service.UDP && to.Port != 53:
		return []string{"normal for UDP: most servers answer only what they understand"}
	case p.Result == probe.Refused:
		return []string{"it left this node: nothing listens there, or a rule on the way refuses it"}
	case p.Result == probe.Unreachable:
		return []string{"it left this node"}
	}
	return nil
}

// contradiction says how the probe contradicts the verdict, and "" if it does not. Rules can treat another
// client than this node in another way: then only what says endpoint can be contradicted.
func (r *Report) contradiction(to service.Frontend, same bool) string {
	p := r.Probe
	reached := p.Result == probe.Connected || p.Result == probe.Answered
	left := p.Endpoint != "" || p.Unknown != ""
	says := "the rules say " + r.Verdict + ", "
	switch {
	case r.Verdict == verdictEndpoint && p.Result == probe.Nothing:
		if left && to.Protocol == service.UDP && to.Port != 53 {
			return ""
		}
		return says + "nothing came back: something else drops it"
	case r.Verdict == verdictEndpoint && !reached && !left:
		return says + "this node itself answers: a rule of another program, or a missing route"
	case r.Verdict == verdictEndpoint && same && p.Endpoint != "" && !r.names(p.Endpoint):
		return says + "and not this one: another program translates it"
	case r.Verdict == verdictRefused && same && p.Result != probe.Refused,
		r.Verdict == verdictDropped && same && p.Result != probe.Nothing:
		return says + "and " + p.Result + " is what came: another program decides before"
	}
	return ""
}

// names reports whether the answer has an endpoint. For a nodePort on a loopback address nftproxy itself
// connects to one, without translation.
func (r *Report) names(endpoint string) bool {
	to, _ := r.frontend()
	return to.Addr.IsLoopback() || slices.ContainsFunc(r.Endpoints, func(e Endpoint) bool {
		return backendOf(e).String() == endpoint
	})
}
