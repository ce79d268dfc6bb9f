package proxier

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

const ms = time.Millisecond

// clocked is a kernel that records when it is called, and whose calls take time and fail as a test sets it.
type clocked struct {
	mu sync.Mutex
	*model
	began                                  time.Time
	diffs, applies, driftChecks, deletions []time.Duration // when they began

	applying, diffing             time.Duration // how long a transaction and a Diff take
	diffErr, applyErr, deletesErr error
	drift                         func() (kernel.Drift, error) // nil: there is none
}

// set changes fields.
func (c *clocked) set(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// note records a call and takes its time.
func (c *clocked) note(calls *[]time.Duration, takes *time.Duration) {
	c.mu.Lock()
	*calls = append(*calls, time.Since(c.began))
	d := *takes
	c.mu.Unlock()
	time.Sleep(d)
}

func (c *clocked) Diff(families []service.Family, build func(rules.Slots) *rules.Ruleset) (
	*rules.Delta, uint32, error) {
	c.note(&c.diffs, &c.diffing)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.diffErr != nil {
		return nil, 0, c.diffErr
	}
	return c.model.Diff(families, build)
}

func (c *clocked) Apply(d *rules.Delta, generation uint32) error {
	c.note(&c.applies, &c.applying)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.applyErr != nil {
		return c.applyErr
	}
	return c.model.Apply(d, generation)
}

func (c *clocked) DeleteStale(d *rules.Delta) (int, error) {
	c.note(&c.deletions, new(time.Duration))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deletesErr != nil {
		return 0, c.deletesErr
	}
	return c.model.DeleteStale(d)
}

func (c *clocked) CheckDrift(*rules.Ruleset) (kernel.Drift, error) {
	c.note(&c.driftChecks, new(time.Duration))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.drift == nil {
		return kernel.Unchanged, nil
	}
	return c.drift()
}

// restart drops what is recorded and sets the clock to zero.
func (c *clocked) restart() {
	synctest.Wait()
	c.set(func() {
		c.began = time.Now()
		c.diffs, c.applies, c.driftChecks, c.deletions = nil, nil, nil, nil
	})
}

// looping is a Proxier whose reconciler runs, in a bubble of synctest.
type looping struct {
	*Proxier
	*clocked
	t    *testing.T
	stop context.CancelFunc
	done chan struct{}
}

// startLoop starts a reconciler with nothing to do, on a source that has not delivered everything yet.
func startLoop(t *testing.T, o Options) *looping {
	t.Helper()
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	p.families = service.Families()
	ctx, cancel := context.WithCancel(t.Context())
	l := &looping{Proxier: p, clocked: &clocked{model: newModel(), began: time.Now()}, t: t, stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(l.done)
		p.newReconciler(l.clocked).run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-l.done })
	return l
}

// inLoop runs f in a bubble, a second after the first sync of an idle reconciler.
func inLoop(t *testing.T, f func(t *testing.T, l *looping), args ...string) {
	t.Helper()
	o := Options{Config: parseConfig(t, append([]string{"--source=" + t.TempDir(), "--hostname-override=node-a"}, args...)...)}
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, o)
		l.Synced()
		l.sleep(time.Second)
		l.restart()
		f(t, l)
	})
}

// Apply is the Proxier's.
func (l *looping) Apply(obj runtime.Object) { l.Proxier.Apply(obj) }

// change changes the port of a Service, to one that depends on the time.
func (l *looping) change() {
	meta := metav1.ObjectMeta{Namespace: "default", Name: "web"}
	port := int32(1 + time.Now().UnixNano()/1000%65535)
	l.state.Apply(&corev1.Service{ObjectMeta: meta,
		Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.1", Ports: []corev1.ServicePort{{Port: port}}}})
	meta.Labels = map[string]string{discoveryv1.LabelServiceName: "web"}
	l.Apply(&discoveryv1.EndpointSlice{ObjectMeta: meta, AddressType: discoveryv1.AddressTypeIPv4})
}

// sleep lets time pass, and everything happen that can happen then.
func (l *looping) sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// check compares when something happened, after everything that can happen now.
func (l *looping) check(what string, got *[]time.Duration, want ...time.Duration) {
	l.t.Helper()
	synctest.Wait()
	if diff := cmp.Diff(want, *got); diff != "" {
		l.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// Healthy reports whether /livez answers with 200.
func (l *looping) Healthy() bool {
	l.t.Helper()
	w := httptest.NewRecorder()
	l.health.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/livez", nil))
	return w.Code == http.StatusOK
}

// once returns a check that finds something the first time only.
func once(found kernel.Drift, err error) func() (kernel.Drift, error) {
	called := false
	return func() (kernel.Drift, error) {
		if called {
			return kernel.Unchanged, nil
		}
		called = true
		return found, err
	}
}

// checkMetric compares a metric without labels.
func checkMetric(t *testing.T, p *Proxier, name string, want int) {
	t.Helper()
	w := httptest.NewRecorder()
	p.metrics.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	_, got, found := strings.Cut(w.Body.String(), "\n"+name+" ")
	if got, _, _ = strings.Cut(got, "\n"); !found || got != fmt.Sprint(want) {
		t.Errorf("%s is %q, want %d", name, got, want)
	}
}
