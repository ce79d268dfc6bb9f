package proxier

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier/config"
	"github.com/nftproxy/nftproxy/proxier/explain"
	"github.com/nftproxy/nftproxy/proxier/host"
	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/proxier/state"
	"github.com/nftproxy/nftproxy/proxier/status"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

const (
	// busyAfter is how long people wait for the reconciler before they are told that it is busy.
	busyAfter = time.Second
	// freshWithin is how long they wait for new counters: 50,000 frontends take longer, and then the page has
	// those of the last read.
	freshWithin = 50 * time.Millisecond
	// maxCounted bounds the elements whose counters are read for a page, each with a request of its own.
	maxCounted = 4096
)

// status returns the state of the node with the rows of a query. It walks all Services beside the reconciler,
// whose goroutine only says what the rules have of those on the page.
func (p *Proxier) status(ctx context.Context, q status.Query) *status.Report {
	q = q.Normal()
	report := &status.Report{At: time.Now(), Query: q, Rows: []status.Row{}, Problems: []status.Problem{},
		HistoryStep: int(historyStep.Seconds())}
	counting := p.config.ConnectionCounters != config.CountOff
	if counting {
		p.refreshConnections()
	}
	open := p.open.get(ctx)
	rows := p.rowsOf(q, open)
	report.Total, report.Matched = rows.Total, rows.Matched
	f, lasting := p.consult(ctx, report, &rows)
	report.Problems = append(append(report.Problems, p.problems(f)...), lasting...)
	conn, err := netlink.Dial()
	if err != nil {
		klog.V(2).InfoS("Failed to open a connection to the kernel for a page", "err", err)
	} else {
		defer conn.Close()
	}
	p.summary(report, f, conn)
	if report.Busy == "" {
		report.Rows = rows.build(p.state)
		if counting {
			rows.fillTraffic(report.Rows, p.connections)
		}
		if f.counted == config.CountEndpoints && conn != nil {
			rows.fillShares(report.Rows, conn)
		}
		open.fillOpen(report.Rows, rows.names)
	}
	return report
}

// consult asks the reconciler. If it is busy the report says so, and the facts are as of its last sync.
func (p *Proxier) consult(ctx context.Context, report *status.Report, rows *statusRows) (
	f facts, problems []status.Problem) {
	ctx, cancel := context.WithTimeout(ctx, busyAfter)
	defer cancel()
	err := p.ask(ctx, func(r *reconciler) error {
		f = r.facts()
		problems, report.MoreProblems = r.problems()
		rows.look(r)
		return nil
	})
	if err == nil {
		return f, problems
	}
	f, begun := p.progress.known()
	switch {
	case !begun.IsZero():
		report.Busy = fmt.Sprintf("a sync has been running for %v", time.Since(begun).Round(100*time.Millisecond))
	case f.lastSync.IsZero():
		report.Busy = "nothing is programmed yet"
	default:
		report.Busy = "nftproxy is busy"
	}
	return f, nil
}

// summary fills the summary in. conn is nil if there is none.
func (p *Proxier) summary(report *status.Report, f facts, conn *netlink.Conn) {
	s := &report.Summary
	release, _ := host.KernelRelease() // "" if it is not known
	*s = status.Summary{
		Node: p.name, Version: p.version, Kernel: release, Started: p.started,
		Services: f.services, Frontends: f.frontends, LastSync: f.lastSync,
		Programming: p.programming.Latency(), Syncs: p.syncTimes.Latency(),
		DriftRepaired: f.repairs, Conflicts: f.conflicts, Counted: f.counted,
	}
	if !f.lastSync.IsZero() {
		s.LastSyncAge = report.At.Sub(f.lastSync).Seconds()
	}
	if f.lastError != nil {
		s.SyncError = f.lastError.Error()
	}
	if conn != nil {
		s.Generation, _ = conn.Generation() // 0 if it is not known
	}
}

// refreshConnections reads the counters, and does not wait for them for long.
func (p *Proxier) refreshConnections() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := p.connections.refresh(); err != nil {
			p.metrics.NetlinkError(err)
		}
	}()
	select {
	case <-done:
	case <-time.After(freshWithin):
	}
}

// statusRows are the ports of a page, with what the rules have of them.
type statusRows struct {
	status.Selection
	node     service.Node
	wanted   map[service.Name][]rules.Wanted
	problems map[service.Name][]string

	// By row: the name of the port, and the elements that count the connections to its endpoints.
	names   []string
	counted []map[nftables.ElementID]service.Backend
}

// rowsOf selects the rows of a query.
func (p *Proxier) rowsOf(q status.Query, open *openPorts) statusRows {
	var ranks map[string]float64
	switch q.Order {
	case status.OrderName:
	case status.OrderOpen:
		ranks = open.ranks()
	default:
		ranks = p.connections.ranks(q.Order)
	}
	list, _ := p.lists.Get().(*[]*service.Service)
	if list == nil {
		list = new([]*service.Service)
	}
	*list = p.state.All(*list)
	selection := q.Select(*list, ranks)
	clear(*list)
	p.lists.Put(list)
	return statusRows{Selection: selection,
		wanted: map[service.Name][]rules.Wanted{}, problems: map[service.Name][]string{}}
}

// look finds out what the rules have. It is for the reconciler's goroutine.
func (s *statusRows) look(r *reconciler) {
	s.node = r.builder.Environment().Node
	for _, row := range s.Rows {
		name := row.Service.Name
		if _, done := s.wanted[name]; !done {
			s.wanted[name] = r.builder.Ruleset().Wanted(name, status.MaxFrontends)
			s.problems[name] = r.builder.Messages(name)
		}
	}
}

// build builds the rows, and keeps no endpoints that these do not have. A port that is gone since it was
// selected is left out.
func (s *statusRows) build(of *state.State) []status.Row {
	rows, elements := make([]status.Row, 0, len(s.Rows)), 0
	var svc *service.Service
	for _, selected := range s.Rows {
		name, was := selected.Service.Name, selected.Service.Ports[selected.Port]
		if svc == nil || svc.Name != name {
			if svc, _ = of.Service(name); svc == nil {
				continue
			}
		}
		i := slices.IndexFunc(svc.Ports, func(p service.Port) bool {
			return p.Port == was.Port && p.Protocol == was.Protocol
		})
		if i < 0 {
			continue
		}
		p := status.Port{Service: svc, Port: &svc.Ports[i], Wanted: s.wanted[name], Node: s.node}
		row, counted := p.Row(), p.Counted(maxCounted-elements)
		row.Problems = s.problems[name]
		rows, elements = append(rows, row), elements+len(counted)
		s.names = append(s.names, rules.PortName(name, svc.Ports[i].Name))
		s.counted = append(s.counted, counted)
	}
	return rows
}

// fillTraffic fills the connections of the rows in.
func (s *statusRows) fillTraffic(rows []status.Row, c *connections) {
	traffic := c.of(s.names)
	for i := range rows {
		t := traffic[s.names[i]]
		rows[i].Connections, rows[i].Rate, rows[i].History = &t.Connections, &t.Rate, t.History
	}
}

// fillShares reads the counters of the endpoints.
func (s *statusRows) fillShares(rows []status.Row, conn *netlink.Conn) {
	var ids []nftables.ElementID
	for _, elements := range s.counted {
		ids = slices.AppendSeq(ids, maps.Keys(elements))
	}
	counts, err := kernel.ReadCounters(conn, ids)
	if err != nil {
		klog.V(2).InfoS("Failed to read counters for a page", "err", err)
		return
	}
	for i := range rows {
		sums := map[service.Backend]uint64{}
		for id, b := range s.counted[i] {
			if n, ok := counts[id]; ok {
				sums[b] += n
			}
		}
		rows[i].Count(sums)
	}
}

// explainText answers what a row asks, for the page.
func (p *Proxier) explainText(ctx context.Context, target, from string) (string, error) {
	report, err := p.explain(ctx, explain.Question{Target: target, From: from})
	if err != nil {
		return "", err
	}
	var b strings.Builder
	if err := report.WriteText(&b); err != nil {
		return "", err
	}
	return b.String(), nil
}
