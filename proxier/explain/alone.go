package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/interpreter"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// KernelWithNames is a Kernel that is searched for frontends.
type KernelWithNames interface {
	Kernel
	// Frontends returns the frontends in the kernel that a function picks, with the port of the Service that
	// the kernel has as their comment: namespace/name:port.
	Frontends(f service.Family, pick func(f service.Frontend, port string) bool) ([]service.Frontend, error)
}

// Alone answers from what the kernel has, when nobody says what is wanted: w has the reasons, the addresses of
// the host, and of the Environment the configuration.
func Alone(k KernelWithNames, w Wanted, q Question) (*Report, error) {
	t, err := parseTarget(q.Target)
	if err != nil {
		return nil, err
	}
	from, err := parseFrom(q.From)
	if err != nil {
		return nil, err
	}
	w.Ruleset = rules.NewRuleset(w.Environment.Config)
	x := &explainer{Wanted: &w, kernel: k, report: &Report{Target: q.Target, Endpoints: []Endpoint{}}}
	found, err := x.search(k, t, from)
	if err != nil {
		return nil, fmt.Errorf("read the kernel: %w", err)
	}
	if !found {
		x.nothing(t, "the kernel has no frontend of that name")
		return x.report, nil
	}
	x.report.Frontend = address(x.frontend)
	if x.client, err = w.client(q.From, x.frontend); err != nil {
		return nil, err
	}
	x.report.Client = x.client.addr.String()
	return x.report, x.evaluateAlone()
}

// search finds the frontend that a target means.
func (x *explainer) search(k KernelWithNames, t target, from netip.Addr) (bool, error) {
	if t.addr.IsValid() {
		x.frontend = service.Frontend{Addr: t.addr, Protocol: t.protocol, Port: t.port}
		return true, nil
	}
	for _, f := range service.Families() {
		if !slices.Contains(x.Environment.Config.Families, f) ||
			from.IsValid() && service.FamilyOf(from) != f {
			continue
		}
		all, err := k.Frontends(f, func(f service.Frontend, port string) bool { return x.meant(t, f, port) })
		if err != nil {
			return false, err
		}
		if len(all) > 0 {
			slices.SortFunc(all, service.Frontend.Compare)
			x.frontend = all[0]
			return true, nil
		}
	}
	return false, nil
}

// meant reports whether a frontend with this comment is meant by a target that is no address.
func (x *explainer) meant(t target, f service.Frontend, comment string) bool {
	if t.protocol != 0 && f.Protocol != t.protocol {
		return false
	}
	if !t.isService() {
		return f.Port == t.port && x.local(f.Addr)
	}
	name, port, _ := strings.Cut(comment, ":")
	return name == t.name.String() &&
		(t.portName == "" || t.portName == port || t.portName == fmt.Sprint(f.Port))
}

// evaluateAlone runs the packet through the kernel's rules, and explains what they did with it.
func (x *explainer) evaluateAlone() error {
	entry, held, err := x.kernel.Element(nftables.FrontendElement(nftables.Services, x.frontend).ElementID)
	if err != nil {
		return fmt.Errorf("read the kernel: %w", err)
	}
	owner := "the kernel has no Service there"
	if held {
		x.report.Service, _, _ = strings.Cut(entry.Comment, ":")
		owner = "of Service " + entry.Comment + ", as the kernel has it"
	}
	x.report.add("frontend", x.report.Frontend, owner)
	x.report.add("client", x.client.addr.String(), x.client.what+", "+x.client.why)
	x.outcomes, err = interpreter.Run(x.kernel, x.local, x.packet())
	if err != nil {
		return fmt.Errorf("evaluate the rules in the kernel: %w", err)
	}
	first := x.outcomes[0]
	x.recordRules(x.decisive())
	x.admitted()
	x.kind = rules.KindExternalIP
	if chain := x.shapeChain(entry, held); chain != "" {
		x.report.add("shape", "chain "+chain, "the number of the frontend leads there")
		if strings.HasPrefix(strings.TrimPrefix(chain, "sticky-"), rules.ShapeCluster.String()) {
			x.kind = rules.KindClusterIP
		}
	}
	for _, o := range x.outcomes {
		if o.Verdict == interpreter.Translated {
			e := Endpoint{Address: o.Endpoint.Addr().String(), Port: o.Endpoint.Port(), Source: sourceOf(o)}
			x.report.Endpoints = append(x.report.Endpoints, e)
			x.report.add("endpoint", o.Endpoint.String(), "its conditions are not known")
		}
	}
	x.source()
	if c := first.Remembered; c != nil && c.Known {
		left, _ := x.kernel.Expires(c.ID)
		x.report.add("affinity", "endpoint "+first.Endpoint.String(),
			"this client has it for another "+left.Round(time.Second).String())
	}
	x.traffic()
	x.daemon()
	x.obstacles()
	x.verdict()
	return nil
}

// shapeChain returns the chain to which the kernel sends connections to a frontend, and "" if it has none.
func (x *explainer) shapeChain(frontend nftables.Element, held bool) string {
	if !held {
		return ""
	}
	family := service.FamilyOf(x.frontend.Addr)
	shape, _, _ := x.kernel.Element(nftables.ShapeElement(family, frontend.DataValues().Class, "").ElementID)
	return shape.Chain
}

// Unable answers for a kernel that cannot have nftproxy's rules because of what it lacks. alone is the reason
// that no daemon was asked.
func Unable(q Question, lacks []string, alone error) (*Report, error) {
	t, err := parseTarget(q.Target)
	if err != nil {
		return nil, err
	}
	x := &explainer{Wanted: &Wanted{},
		report: &Report{Target: q.Target, Endpoints: []Endpoint{}, Verdict: interpreter.Untouched.String()}}
	subject := "frontend"
	if t.isService() {
		subject, x.report.Service = "service", t.name.String()
	}
	x.report.add(subject, q.Target, "nothing of it can be programmed on this node")
	x.report.add("daemon", "not asked", alone.Error())
	for _, what := range lacks {
		x.report.add("kernel", "lacks", what)
	}
	x.report.add("verdict", x.report.Verdict, "the kernel lacks what nftproxy's rules need")
	return x.report, nil
}
