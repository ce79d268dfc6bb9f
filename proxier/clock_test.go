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

	"github.com/nftproxy/nftproxy/proxier/nft"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

const ms = time.Millisecond

// clocked is a kernel that notes when it is called, and does what it is told.
type clocked struct {
	mu sync.Mutex
	*model
	began                         time.Time
	reads, applies, looks, tidies []time.Duration // when they began

	takes                   time.Duration // what a transaction takes
	reading                 time.Duration // what a reading takes
	readErr, applyErr, tidy error
	look                    func() (nft.Drift, error)
}

// tell tells the kernel what to do from now on.
func (c *clocked) tell(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// note notes a call, and lets it take its time.
func (c *clocked) note(calls *[]time.Duration, takes *time.Duration) {
	c.mu.Lock()
	*calls = append(*calls, time.Since(c.began))
	d := *takes
	c.mu.Unlock()
	time.Sleep(d)
}

func (c *clocked) Read(families []service.Family) (*nft.Snapshot, error) {
	c.note(&c.reads, &c.reading)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.readErr != nil {
		return nil, c.readErr
	}
	return c.model.Read(families)
}

func (c *clocked) Apply(d *rules.Delta, generation uint32) error {
	c.note(&c.applies, &c.takes)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.applyErr != nil {
		return c.applyErr
	}
	return c.model.Apply(d, generation)
}

func (c *clocked) DeleteStale(d *rules.Delta) (int, error) {
	c.note(&c.tidies, new(time.Duration))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tidy != nil {
		return 0, c.tidy
	}
	return c.model.DeleteStale(d)
}

func (c *clocked) CheckDrift(nft.Outline) (nft.Drift, error) {
	c.note(&c.looks, new(time.Duration))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.look == nil {
		return nft.Unchanged, nil
	}
	return c.look()
}

// forget begins anew.
func (c *clocked) forget() {
	synctest.Wait()
	c.tell(func() {
		c.began = time.Now()
		c.reads, c.applies, c.looks, c.tidies = nil, nil, nil, nil
	})
}

// looping is a Proxier whose loop runs, in a bubble with a clock of its own.
type looping struct {
	*Proxier
	*clocked
	t    *testing.T
	stop context.CancelFunc
	done chan struct{}
}

// startLoop starts a loop with nothing to do. The source has not said yet that it has
// delivered everything.
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
		p.loop(ctx, l.clocked)
	}()
	t.Cleanup(func() { cancel(); <-l.done })
	return l
}

// inLoop runs f in a bubble, a second after the first sync of an idle loop.
func inLoop(t *testing.T, f func(t *testing.T, l *looping), args ...string) {
	t.Helper()
	o := Options{Config: parseConfig(t, append([]string{"--source=" + t.TempDir(), "--hostname-override=node-a"}, args...)...)}
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, o)
		l.Synced()
		l.sleep(time.Second)
		l.forget()
		f(t, l)
	})
}

// Apply is the Proxier's.
func (l *looping) Apply(obj runtime.Object) { l.Proxier.Apply(obj) }

// change makes a change of the number of endpoints of a Service, so that each one is seen.
func (l *looping) change() { l.changeOf("web", "10.96.0.1") }

func (l *looping) changeOf(name, clusterIP string) {
	meta := metav1.ObjectMeta{Namespace: "default", Name: name}
	l.state.Apply(&corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{ClusterIP: clusterIP, Ports: []corev1.ServicePort{{Port: int32(1 + time.Now().UnixNano()/1000%65535)}}}})
	meta.Labels = map[string]string{discoveryv1.LabelServiceName: name}
	l.Apply(&discoveryv1.EndpointSlice{ObjectMeta: meta, AddressType: discoveryv1.AddressTypeIPv4})
}

// sleep lets time pass, and all happen that can happen at its end.
func (l *looping) sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// check compares when something was done, after all that can happen now has happened.
func (l *looping) check(what string, got *[]time.Duration, want ...time.Duration) {
	l.t.Helper()
	synctest.Wait()
	if diff := cmp.Diff(want, *got); diff != "" {
		l.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// Healthy is what /livez says.
func (l *looping) Healthy() bool {
	l.t.Helper()
	w := httptest.NewRecorder()
	l.health.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/livez", nil))
	return w.Code == http.StatusOK
}

// once returns a Look that sees something once, and nothing any more then.
func once(drift nft.Drift, err error) func() (nft.Drift, error) {
	seen := false
	return func() (nft.Drift, error) {
		if seen {
			return nft.Unchanged, nil
		}
		seen = true
		return drift, err
	}
}

// checkRepaired compares how much drift was repaired, as the metrics say.
func (l *looping) checkRepaired(want int) {
	l.t.Helper()
	w := httptest.NewRecorder()
	l.metrics.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if line := fmt.Sprintf("\nnftproxy_drift_repaired_total %d\n", want); !strings.Contains(w.Body.String(), line) {
		_, after, _ := strings.Cut(w.Body.String(), "\nnftproxy_drift_repaired_total")
		l.t.Errorf("not in the metrics: %s but %.10q", line, after)
	}
}
