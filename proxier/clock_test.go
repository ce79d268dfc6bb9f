package proxier

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
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

	"github.com/nftproxy/nftproxy/internal/configtest"
	"github.com/nftproxy/nftproxy/internal/fakekernel"
	"github.com/nftproxy/nftproxy/rules/service"
)

const ms = time.Millisecond

// clocked is a fake kernel that records when its methods are called, and whose methods take time and fail as
// a test sets it.
type clocked struct {
	*fakekernel.Kernel

	mu    sync.Mutex
	began time.Time
	calls map[string][]time.Duration // when each method was called
	takes map[string]time.Duration
	errs  map[string]error
	// unrest lets another process write to tables of its own before each check for drift.
	unrest bool
}

func newClocked() *clocked {
	c := &clocked{Kernel: fakekernel.New(), began: time.Now(), calls: map[string][]time.Duration{},
		takes: map[string]time.Duration{}, errs: map[string]error{}}
	c.Fail = c.called
	return c
}

// called records a call and takes its time.
func (c *clocked) called(method string) error {
	c.mu.Lock()
	c.calls[method] = append(c.calls[method], time.Since(c.began))
	takes, err, unrest := c.takes[method], c.errs[method], c.unrest && method == "CheckDrift"
	c.mu.Unlock()
	if unrest {
		c.writeElsewhere()
	}
	time.Sleep(takes)
	return err
}

// set changes what the methods do.
func (c *clocked) set(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// fail lets methods fail, with nil no longer.
func (c *clocked) fail(err error, methods ...string) {
	c.set(func() {
		for _, m := range methods {
			c.errs[m] = err
		}
	})
}

// damage changes our tables as another process could.
func (c *clocked) damage() {
	c.Edit(func(ts fakekernel.Tables) { delete(ts[service.IPv4].Chains, "nat-output") })
}

// writeElsewhere changes another table.
func (c *clocked) writeElsewhere() { c.Edit(func(fakekernel.Tables) {}) }

// restart drops what is recorded and sets the clock to zero.
func (c *clocked) restart() {
	synctest.Wait()
	c.set(func() {
		c.began = time.Now()
		clear(c.calls)
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
	p.setFamilies(service.Families())
	ctx, cancel := context.WithCancel(t.Context())
	l := &looping{Proxier: p, clocked: newClocked(), t: t, stop: cancel, done: make(chan struct{})}
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
	args = append([]string{"--source=" + t.TempDir(), "--hostname-override=node-a"}, args...)
	o := Options{Config: configtest.Parse(t, args...)}
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, o)
		l.Synced()
		l.sleep(time.Second)
		l.restart()
		f(t, l)
	})
}

// Apply is that of the Proxier.
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

// when returns when a method was called, after everything that can happen now.
func (l *looping) when(method string) []time.Duration {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.calls[method])
}

// check compares times with expected ones.
func (l *looping) check(what string, got []time.Duration, want ...time.Duration) {
	l.t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
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

// checkMetric compares a metric, whose name includes its labels.
func checkMetric(t *testing.T, p *Proxier, name string, want int) {
	t.Helper()
	w := httptest.NewRecorder()
	p.metrics.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	_, got, found := strings.Cut(w.Body.String(), "\n"+name+" ")
	if got, _, _ = strings.Cut(got, "\n"); !found || got != fmt.Sprint(want) {
		t.Errorf("%s is %q, want %d", name, got, want)
	}
}
