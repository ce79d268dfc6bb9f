package proxier

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nftproxy/nftproxy/internal/configtest"
	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// scripted is a kernel whose calls have the results that a test sets.
type scripted struct {
	lacks     rules.Delta // found by Diff, until Apply succeeds
	meanwhile func()      // called by Diff when it has built the ruleset, for changes that come too late
	diffErr   error
	applyErrs []error // of the next calls
	deleteErr error
	found     kernel.Drift
	checkErr  error
	diffs     int
}

func (s *scripted) Diff(_ []service.Family, build func(rules.Slots) *rules.Ruleset) (
	*rules.Delta, error) {
	s.diffs++
	if s.diffErr != nil {
		return nil, s.diffErr
	}
	build(nil)
	if s.meanwhile != nil {
		s.meanwhile()
	}
	d := s.lacks
	return &d, nil
}

func (s *scripted) Apply(*rules.Delta) (err error) {
	if len(s.applyErrs) > 0 {
		err, s.applyErrs = s.applyErrs[0], s.applyErrs[1:]
	}
	if err == nil {
		s.lacks = rules.Delta{}
	}
	return err
}

// noFlows is connection tracking without an entry.
func noFlows(context.Context, service.Family, []service.StaleFlows) (int, []service.Frontend, error) {
	return 0, nil, nil
}

func (s *scripted) DeleteStale(*rules.Delta) error { return s.deleteErr }

func (s *scripted) CheckDrift(*rules.Ruleset) (kernel.Drift, error) { return s.found, s.checkErr }

// newScripted returns a reconciler that has synced once, and its kernel.
func newScripted(t *testing.T) (*reconciler, *scripted) {
	t.Helper()
	s := &scripted{}
	_, r := newStandalone(t, configtest.Case(t, "", t.TempDir()), s)
	r.deleteFlows = noFlows
	mustSync(t, r, s, true)
	return r, s
}

// mustSync syncs and checks whether the sync was a full one.
func mustSync(t *testing.T, r *reconciler, s *scripted, full bool) {
	t.Helper()
	before := s.diffs
	if err := syncWhole(t, r); err != nil {
		t.Fatal(err)
	}
	if got := s.diffs > before; got != full {
		t.Errorf("full sync: %t, want %t", got, full)
	}
	if r.due != none {
		t.Errorf("after a sync that succeeded, the next one is due because of %s", r.due)
	}
}

// failSync syncs, and fails unless the sync does.
func failSync(t *testing.T, r *reconciler) {
	t.Helper()
	if err := syncWhole(t, r); err == nil {
		t.Fatal("the sync succeeded")
	}
}

// oneChain is a difference of one chain.
func oneChain() rules.Delta {
	return rules.Delta{Chains: []nftables.Chain{{Family: service.IPv4, Name: "services"}}}
}

// changeService changes a Service of the cluster.
func changeService(p *Proxier) { changeNamed(p, "web") }

func changeNamed(p *Proxier, name string) {
	version := fmt.Sprint(time.Now().UnixNano())
	p.Apply(&corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: name, Labels: map[string]string{"version": version}},
		Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.1", Ports: []corev1.ServicePort{{Port: 80}}},
	})
}

// changeNode changes the addresses of the node.
func changeNode(p *Proxier) {
	p.Apply(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a"}, Status: corev1.NodeStatus{
		Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}}}})
}

// checkRepaired compares how often a repair was reported, by the metric and by Events.
func checkRepaired(t *testing.T, r *reconciler, want int) {
	t.Helper()
	checkMetric(t, r.Proxier, "nftproxy_drift_repaired_total", want)
	n := 0
	for _, ev := range queued(r.events) {
		if ev.Reason == reasonDriftRepaired &&
			strings.Contains(ev.Note, "another process changed nftproxy's tables: repaired") {
			n++
		}
	}
	if n != want {
		t.Errorf("%d Events about a repair, want %d", n, want)
	}
}

// queued returns the queued Events, which stay in the queue.
func queued(e *eventer) (events []*eventsv1.Event) {
	for range len(e.queue) {
		ev := <-e.queue
		events = append(events, ev)
		e.queue <- ev
	}
	return events
}
