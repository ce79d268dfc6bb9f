package source

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// apiCase runs an API source against a server in a bubble of test time.
type apiCase struct {
	t      *testing.T
	server *apiServer
	sink   *recordingSink
	stop   func()
}

// recordingSink records what it receives, as "+ Service shop/web a" with the label v, and errors as "! text".
type recordingSink struct {
	t        *testing.T
	busy     sync.Mutex
	received []string
	over     bool
}

func (s *recordingSink) note(format string, args ...any) {
	if !s.busy.TryLock() {
		s.t.Error("called concurrently")
		return
	}
	defer s.busy.Unlock()
	if s.over {
		s.t.Error("called after the end of Run")
	}
	s.received = append(s.received, fmt.Sprintf(format, args...))
}

func (s *recordingSink) Apply(obj runtime.Object) {
	o := obj.(object)
	if o.GetManagedFields() != nil {
		s.t.Errorf("%s has managedFields", o.GetName())
	}
	s.note("%s", strings.TrimRight("+ "+title(o)+" "+o.GetLabels()["v"], " "))
}
func (s *recordingSink) Delete(obj runtime.Object) { s.note("- %s", title(obj.(object))) }
func (s *recordingSink) Synced()                   { s.note("synced") }

func title(o object) string {
	name := strings.TrimPrefix(o.GetNamespace()+"/"+o.GetName(), "/")
	return strings.TrimPrefix(fmt.Sprintf("%T ", o), "*v1.") + name
}

// runAPI runs the steps of a test in a synctest bubble; begin starts the source.
func runAPI(t *testing.T, steps func(c *apiCase)) {
	t.Helper()
	for _, mode := range []string{"watch list", "list and watch"} {
		t.Run(mode, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &apiCase{t: t, server: newAPIServer(t), sink: &recordingSink{t: t}, stop: func() {}}
				c.server.noWatchList = mode == "list and watch"
				steps(c)
				c.stop()
			})
		})
	}
}

// take waits until all goroutines are idle, and returns what the sink received since the last call.
func (c *apiCase) take() []string {
	synctest.Wait()
	c.sink.busy.Lock()
	defer c.sink.busy.Unlock()
	received := c.sink.received
	c.sink.received = nil
	return received
}

// expect waits until all goroutines are idle, and compares what the sink received since the last call. The
// resources have no order among them, so it sorts what comes before "synced", and what comes after it.
func (c *apiCase) expect(want ...string) {
	c.t.Helper()
	compare(c.t, want, c.take())
}

func compare(t *testing.T, want, got []string) {
	t.Helper()
	if i := slices.Index(got, "synced"); i >= 0 {
		slices.Sort(got[:i])
		slices.Sort(got[i+1:])
	} else {
		slices.Sort(got)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("received (-want +got):\n%s", diff)
	}
}

func meta(name, v string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Namespace: "shop", Labels: map[string]string{"v": v}}
}

func apiService(name, v string) *corev1.Service {
	return &corev1.Service{ObjectMeta: meta(name, v), Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.1"}}
}

func apiSlice(name, v string) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{ObjectMeta: meta(name, v), AddressType: discoveryv1.AddressTypeIPv4}
}

func apiNode(name, v string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: meta(name, v)}
	n.Namespace = ""
	return n
}

func apiCIDR(name string) *networkingv1.ServiceCIDR {
	return &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

// fill puts one object of each kind on the server.
func (c *apiCase) fill() { c.putAll("1") }

func (c *apiCase) putAll(v string) {
	c.server.put(apiService("web", v))
	c.server.put(apiSlice("web-a", v))
	c.server.put(apiNode("here", v))
	c.server.put(apiCIDR("kubernetes"))
}

// filled is what the sink receives of the objects of fill.
func filled() []string {
	return []string{
		"+ EndpointSlice shop/web-a 1", "+ Node here 1", "+ Service shop/web 1", "+ ServiceCIDR kubernetes",
	}
}

// started fills the server, starts the source and expects the objects.
func (c *apiCase) started() {
	c.t.Helper()
	c.fill()
	c.begin()
	c.expect(append(filled(), "synced")...)
}

func TestAPIFollows(t *testing.T) {
	runAPI(t, func(c *apiCase) {
		c.started()
		c.server.put(apiService("web", "2"))
		c.server.put(apiService("new", "1"))
		c.server.remove(apiSlice("web-a", ""))
		c.server.put(apiNode("here", "2"))
		c.server.remove(apiCIDR("kubernetes"))
		c.expect("+ Node here 2", "+ Service shop/new 1", "+ Service shop/web 2",
			"- EndpointSlice shop/web-a", "- ServiceCIDR kubernetes")
	})
}

func TestAPIFilters(t *testing.T) {
	runAPI(t, func(c *apiCase) {
		headless, foreign := apiService("headless", "1"), apiService("foreign", "1")
		headless.Spec.ClusterIP = "None"
		foreign.Labels["service.kubernetes.io/service-proxy-name"] = "other"
		slice := apiSlice("headless-a", "1")
		slice.Labels["service.kubernetes.io/headless"] = ""
		for _, obj := range []object{headless, foreign, slice, apiNode("there", "1")} {
			c.server.put(obj)
		}
		c.started()
		for _, obj := range []object{headless, foreign, slice, apiNode("there", "2")} {
			obj.GetLabels()["v"] = "2"
			c.server.put(obj)
		}
		c.expect()
		c.server.put(apiService("foreign", "3")) // ours now, because it has no label
		c.expect("+ Service shop/foreign 3")
		c.server.put(foreign)
		c.expect("- Service shop/foreign")
	})
}

func TestAPIEmptyCluster(t *testing.T) {
	runAPI(t, func(c *apiCase) {
		c.server.put(apiNode("here", "1"))
		c.begin()
		c.expect("+ Node here 1", "synced")
	})
}

func TestAPIServerStops(t *testing.T) {
	for _, compact := range []bool{false, true} {
		runAPI(t, func(c *apiCase) {
			c.server.put(apiService("old", "1"))
			c.fill()
			c.begin()
			c.take()

			c.server.stop()
			time.Sleep(10 * time.Minute)
			reports, _ := errorsOf(c.take())
			if len(reports) != 1 || !strings.Contains(reports[0], "connection refused; not heard for ") {
				c.t.Errorf("reports of the outage: %q", reports)
			}
			c.server.put(apiService("web", "2"))
			c.server.remove(apiService("old", ""))
			c.server.start(compact)
			time.Sleep(2 * time.Minute)
			reports, rest := errorsOf(c.take())
			compare(c.t, []string{"+ Service shop/web 2", "- Service shop/old"}, rest)
			if len(reports) != 1 || !strings.Contains(reports[0], "API server answers again after 10m") {
				c.t.Errorf("reports of its end: %q", reports)
			}

			c.server.stop()
			c.server.start(compact)
			time.Sleep(2 * time.Minute)
			c.expect()
		})
	}
}

func TestAPIWatchEnds(t *testing.T) {
	runAPI(t, func(c *apiCase) {
		c.started()
		before := c.server.count("watch services")
		time.Sleep(time.Hour) // the reflector limits a watch to 10 minutes
		c.expect()
		// Bookmarks keep it: without them, it would end after 3 minutes.
		if n := c.server.count("watch services") - before; n < 5 || n > 12 {
			c.t.Errorf("%d watches in an hour", n)
		}
	})
}

func forbidden(verb, resource string) error {
	gr := schema.GroupResource{Resource: resource}
	return apierrors.NewForbidden(gr, "", fmt.Errorf("no right to %s", verb))
}

func TestAPIForbidden(t *testing.T) {
	runAPI(t, func(c *apiCase) {
		for _, resource := range []string{"services", "nodes", "servicecidrs"} {
			c.server.refuseRequests("list "+resource, forbidden("list", resource))
			c.server.refuseRequests("watch "+resource, forbidden("watch", resource))
		}
		c.fill()
		c.begin()
		time.Sleep(10 * time.Minute)
		c.expect(
			"! list nodes: nodes is forbidden: no right to list",
			"! list servicecidrs: servicecidrs is forbidden: no right to list",
			"! list services: services is forbidden: no right to list",
			"! start: no services received within 15s",
			"+ EndpointSlice shop/web-a 1",
		)
		c.server.refuseRequests("list services", nil)
		time.Sleep(2 * time.Minute)
		reports, rest := errorsOf(c.take())
		compare(c.t, []string{"+ Service shop/web 1", "synced"}, rest)
		if len(reports) != 2 || !strings.HasPrefix(reports[0], "~ services received after 10m") ||
			reports[1] != "! watch services: services is forbidden: no right to watch" {
			c.t.Errorf("reports %q", reports)
		}
		c.server.refuseRequests("watch services", nil)
		c.server.refuseRequests("list nodes", nil)
		c.server.refuseRequests("watch nodes", nil)
		time.Sleep(2 * time.Minute)
		c.expect("+ Node here 1",
			"~ the API server serves nodes again", "~ the API server serves services again")
	})
}

func TestAPIStartsWithoutNode(t *testing.T) {
	runAPI(t, func(c *apiCase) {
		c.fill()
		c.server.remove(apiNode("here", ""))
		c.begin()
		time.Sleep(environmentTimeout - time.Second)
		c.expect("+ EndpointSlice shop/web-a 1", "+ Service shop/web 1", "+ ServiceCIDR kubernetes")
		time.Sleep(time.Second)
		c.expect("! start without nodes: none received within 30s", "synced")
		c.server.put(apiNode("here", "1"))
		c.expect("+ Node here 1")
	})
}

func TestAPIAwaitsNode(t *testing.T) {
	runAPI(t, func(c *apiCase) {
		c.begin()
		time.Sleep(environmentTimeout - time.Second)
		c.expect()
		c.server.put(apiNode("here", "1"))
		c.expect("+ Node here 1", "synced")
	})
}

func TestAPIServiceCIDRsNotServed(t *testing.T) {
	runAPI(t, func(c *apiCase) {
		c.server.noCIDRs = true
		c.server.refuseRequests("discover servicecidrs", apierrors.NewInternalError(fmt.Errorf("starting")))
		c.fill()
		c.begin()
		starting := "! discover servicecidrs: Internal error occurred: starting"
		c.expect(append([]string{starting}, filled()[:3]...)...)
		c.server.refuseRequests("discover servicecidrs", nil)
		time.Sleep(10 * time.Second)
		c.expect("synced")
		time.Sleep(time.Hour)
		if n := c.server.count("list servicecidrs") + c.server.count("watch servicecidrs"); n > 0 {
			c.t.Errorf("%d requests for a resource that is not served", n)
		}
	})
}

func TestReduce(t *testing.T) {
	full := apiSlice("a", "1")
	full.Annotations = map[string]string{corev1.EndpointsLastChangeTriggerTime: "now", "other": "x"}
	full.Finalizers = []string{"x"}
	full.OwnerReferences = []metav1.OwnerReference{{Name: "x"}}
	full.Endpoints = []discoveryv1.Endpoint{
		{Addresses: []string{"10.0.0.1"}, TargetRef: &corev1.ObjectReference{Name: "pod"}},
	}
	reduce(full)
	want := apiSlice("a", "1")
	want.Annotations = map[string]string{corev1.EndpointsLastChangeTriggerTime: "now"}
	want.Endpoints = []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}}}
	if diff := cmp.Diff(want, full); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, tt := range []struct{ had, want map[string]string }{
		{nil, nil},
		{map[string]string{"other": "x"}, nil},
		{map[string]string{"nftproxy.io/scheduler": "mh"}, map[string]string{"nftproxy.io/scheduler": "mh"}},
		{map[string]string{"nftproxy.io/weights": "a", "other": "x"},
			map[string]string{"nftproxy.io/weights": "a"}},
	} {
		svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Annotations: tt.had}}
		reduce(svc)
		if diff := cmp.Diff(tt.want, svc.Annotations); diff != "" {
			t.Errorf("annotations of a Service (-want +got):\n%s", diff)
		}
	}
}
