package proxier

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nftproxy/nftproxy/proxier/desired"
	"github.com/nftproxy/nftproxy/proxier/host"
	"github.com/nftproxy/nftproxy/proxier/status"
)

// What a note is about.
const (
	aboutAPI        = "api"
	aboutConfig     = "config"
	aboutTable      = "conntrack table"
	aboutDrops      = "conntrack drops"
	aboutKubeProxy  = "kube-proxy"
	aboutForwarding = "forwarding"
	aboutAddresses  = "addresses of the Node"
)

const (
	// driftIsNews is how long a repair is a problem after it: another one may follow.
	driftIsNews = 15 * time.Minute
	// silence is how long the API server may not be heard. At most 3 minutes are normal.
	silence = 5 * time.Minute
	// maxProblems bounds the problems of Services that a page has.
	maxProblems = 20
)

// problems returns those of the node as a whole.
func (p *Proxier) problems(f facts) (list []status.Problem) {
	add := func(since time.Time, what, todo string) {
		list = append(list, status.Problem{What: what, Since: since, Todo: todo})
	}
	select {
	case <-p.synced:
	default:
		add(p.started, "Nothing is programmed yet: the source has not delivered all Services and EndpointSlices.",
			"See whether the API server answers this node, and what the log says. Rules of an earlier process stay.")
	}
	if f.lastError != nil {
		add(f.failing, fmt.Sprintf("Changes are not programmed: %v", f.lastError), fmt.Sprintf(
			"The words of the kernel say why. nftproxy tries again at least every %v (%d failures so far); "+
				"connections follow the rules as they were.", maxRetry, f.failures))
	}
	p.watchForwarding()
	p.watchTracking()
	list = append(list, p.notes.list()...)
	if resources, since := p.notes.silent(silence); len(resources) > 0 {
		add(since, "Nothing has come from the API server about "+strings.Join(resources, ", ")+
			": endpoints may be out of date.", "See whether the API server answers this node.")
	}
	if time.Since(f.repairedAt) < driftIsNews {
		add(f.repairedAt, f.repaired, "Find the program that changes nftables on this node: see docs/"+
			"troubleshooting.md. With Linux 6.9 --own-tables keeps it out.")
	}
	return list
}

// watchForwarding notes that the node does not forward packets, or that it does again.
func (p *Proxier) watchForwarding() {
	off := host.NotForwarding(p.families)
	if len(off) == 0 {
		p.notes.clear(aboutForwarding)
		return
	}
	p.notes.set(aboutForwarding, "This node does not forward packets to pods and other nodes: 0 is the value of "+
		strings.Join(off, " and ")+".", "Set it to 1, also in /etc/sysctl.d for the next boot.")
}

// problems returns those that the reconciler knows, and how many others of Services there are.
func (r *reconciler) problems() (list []status.Problem, more int) {
	for _, f := range []struct {
		failure
		todo string
	}{
		{r.checking, "Changes to nftproxy's tables by other programs may stay unnoticed until the next full sync."},
		{r.flushing, "UDP clients may stay with endpoints that are gone until this works."},
	} {
		if f.err != nil {
			list = append(list, status.Problem{
				What: fmt.Sprintf("%s: %v", f.message, f.err), Since: f.since, Todo: f.todo})
		}
	}
	for _, known := range []struct {
		reported
		todo string
	}{
		{r.ports, "End the program that has the port: load balancers take this node for one without endpoints."},
		{r.loopbacks, "End the program that has the port."},
		{r.loopbackConflicts, "Give one of the Services another nodePort."},
	} {
		listed, all := known.first(maxProblems)
		for _, l := range listed {
			list = append(list, ofService(l, known.todo))
		}
		more += all - len(listed)
	}
	listed, all := r.builder.Lasting(maxProblems)
	for _, l := range listed {
		todo := "Correct the Service or its EndpointSlices; the rest of it works."
		if l.Reason == desired.ReasonConflict {
			todo = "Give one of the two Services another address or port."
		}
		list = append(list, ofService(l, todo))
	}
	return list, more + all - len(listed)
}

func ofService(l desired.Lasting, todo string) status.Problem {
	return status.Problem{What: l.Error() + ".", Since: l.Since, Todo: todo}
}

// first returns the first of the problems in the order of their Services, and how many there are.
func (r reported) first(most int) (list []desired.Lasting, all int) {
	for p, since := range r {
		list = append(list, desired.Lasting{Problem: p, Since: since})
	}
	slices.SortFunc(list, desired.Lasting.Compare)
	return list[:min(len(list), most)], len(list)
}
